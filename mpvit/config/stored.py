"""The config that a checkpoint was trained with, read as data: nothing in it is executed."""

import ast
import os
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mpvit.checkpoints.reading import read
from mpvit.errors import UserError
from mpvit.files.paths import newest_config

_SCOPES = ('mmdet', 'mmengine', 'mmcv', 'mmpretrain', 'mpvit')
_SCOPED = re.compile(rf'({"|".join(_SCOPES)})\.\w+')


def stored_config(checkpoint: Path) -> Config:
    """The config of the training that left a checkpoint.

    It is in the checkpoint; for an exported detector it is the newest beside the file. Outputs go
    into the folder of the checkpoint if that is the run's, wherever it was moved.

    Args:
        checkpoint: A checkpoint, or an exported detector.

    Raises:
        UserError: There is none, or it needs code of its own.
    """
    beside = newest_config(checkpoint.parent)
    text = beside.read_text(encoding='utf-8') if beside else None
    if checkpoint.suffix not in ('.onnx', '.xml'):
        meta = read(checkpoint).get('meta')
        inside = meta.get('cfg') if isinstance(meta, dict) else None
        text = inside if isinstance(inside, str) else text
    hint = f'name the config first: CONFIG {checkpoint}'
    if text is None:
        raise UserError(f'{checkpoint} does not say which config it was trained with; {hint}')
    try:
        entries = _literal(text)
        _check_names(entries)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(
            f'the config of {checkpoint} cannot be read as data: {error}; {hint}'
        ) from error
    name = str(beside or checkpoint.with_suffix('.py'))
    config = Config(entries, cfg_text=text, filename=name)
    config.work_dir = str(checkpoint.parent) if beside else None
    config.load_from, config.resume = None, False
    return config


def own_config_hint(checkpoint: str | os.PathLike[str] | None, used: Config) -> str:
    """The end of a message about a checkpoint that does not fit the config that was used.

    It names the config that lies beside the checkpoint, if that is another.
    """
    if checkpoint is None or not os.path.isfile(checkpoint):
        return ''
    beside = newest_config(Path(checkpoint).parent)
    other = beside is not None and os.path.realpath(used.filename or '') != os.path.realpath(beside)
    return f'; the config beside it is {beside}' if other else ''


def _literal(text: str) -> dict[str, Any]:
    """Assignments of plain values, as mmengine writes a config, without running them.

    Raises:
        ValueError: There is something else.
        SyntaxError: It is no Python.
    """
    entries = {}
    for node in ast.parse(text).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            raise ValueError(f'line {node.lineno} is more than a name and its value')
        entries[node.targets[0].id] = _value(node.value)
    return entries


def _value(node: ast.expr) -> Any:
    """A plain value, with ``dict(a=1)`` for a dict and the names of floats that are no numbers."""
    if isinstance(node, ast.Call) and not node.args and _name(node.func) == 'dict':
        return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_value(k): _value(v) for k, v in zip(node.keys, node.values, strict=True) if k}
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_value(child) for child in node.elts)
    if _name(node) in ('inf', 'nan'):
        return float(_name(node))
    return ast.literal_eval(node)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ''


def _check_names(value: Any, key: str = '') -> None:
    """Make sure that types are names in a registry: mmengine imports whatever has more dots.

    Raises:
        ValueError: One is not, or a module of one's own is to be imported.
    """
    if isinstance(value, dict):
        for inner, child in value.items():
            _check_names(child, str(inner))
    elif isinstance(value, (list, tuple, set)):
        for child in value:
            _check_names(child, key)
    elif key == 'type' and isinstance(value, str) and '.' in value and not _SCOPED.fullmatch(value):
        raise ValueError(f'type {value!r} is no name in a registry')
    elif key in ('default_scope', '_scope_') and value not in _SCOPES:
        raise ValueError(f'the scope {value!r} is another project')
    elif key == 'imports' and not str(value).startswith('mpvit.'):
        raise ValueError(f'it imports the module {value}, which is code')
