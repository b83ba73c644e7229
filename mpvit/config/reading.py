"""Reading configs, with one clear line for every mistake in them."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction

from mpvit.config.names import find_config, is_model_file
from mpvit.config.stored import config_name, stored_config
from mpvit.errors import UserError, did_you_mean, listed
from mpvit.files.paths import work_dir as usable_work_dir

# Top-level entries that mmengine or this project reads and a config need not spell out.
_OPTIONAL_ENTRIES = frozenset(
    'activation_checkpointing compile console_log_level data_preprocessor experiment_name '
    'find_unused_parameters launcher load_from model_wrapper_cfg quick_check randomness resume '
    'sync_bn work_dir'.split()
)
# Those that a config does spell out; all others are variables of the file.
_READ_ENTRIES = frozenset(
    'auto_scale_lr custom_hooks custom_imports default_hooks default_scope env_cfg log_level '
    'log_processor model optim_wrapper param_scheduler runner_type test_cfg test_dataloader '
    'test_evaluator train_cfg train_dataloader tta_model tta_pipeline val_cfg val_dataloader '
    'val_evaluator visualizer'.split()
)
# Entries that have one kind whatever a config is for; the second may also be None.
_KINDS: dict[str, type] = {
    'model': dict,
    'model.backbone': dict,
    'default_scope': str,
    'work_dir': str,
    'load_from': str,
    'optim_wrapper': dict,
    'optim_wrapper.optimizer': dict,
    'default_hooks': dict,
    'custom_hooks': list,
    'visualizer': dict,
}
for _split in ('train', 'val', 'test'):
    _KINDS |= {f'{_split}_dataloader': dict, f'{_split}_dataloader.dataset': dict}
    _KINDS |= {f'{_split}_cfg': dict}
_OPTIONAL_KINDS = {*_KINDS} - {'model', 'model.backbone', 'default_scope'}
_OPTIONAL_KINDS -= {place for place in _KINDS if place.endswith('.dataset')}
_CLOSE = 0.8  # similarity from which an unknown key counts as a misspelt one


def load_config(
    name: str | os.PathLike[str],
    options: Sequence[str] = (),
    work_dir: str | None = None,
    edit: Callable[[Config], object] | None = None,
) -> Config:
    """Read a config and apply what was said on the command line; also ``mpvit.get_config``.

    Args:
        name: Config file, or name of a config that comes with the package (`find_config`), or a
            checkpoint or exported detector, for the config that it was trained with.
        options: Overrides as ``key.subkey=value``, the way mmdet writes them.
        work_dir: Folder for outputs; None for the config's own or ``work_dirs/<config name>``.
        edit: Changes the config in place before the overrides, which so have the last word.

    Returns:
        The config, with ``work_dir`` set; mmengine's ``Runner.from_cfg`` takes it.

    Raises:
        UserError: The file is missing or broken, or an override names nothing.
    """
    path = find_config(name)
    try:
        config = stored_config(path) if is_model_file(path) else _from_file(path)
    except UserError:  # of a module that it imports
        raise
    except ImportError as error:
        raise UserError(
            f'cannot read config {path}: {_first(error)}; modules of custom_imports are looked for '
            'beside the config and in PYTHONPATH'
        ) from error
    except Exception as error:  # a config is code: anything may go wrong in it
        raise UserError(f'cannot read config {path}: {type(error).__name__}: {error}') from error
    _check_kinds(config, path)
    if edit is not None:
        edit(config)
    overrides = parse_options(options)
    for key in overrides:
        _check_key(config, key)
    try:
        config.merge_from_dict(overrides)
    except Exception as error:  # mmengine's merging has many, and no kind of its own
        raise UserError(f'--cfg-options does not fit config {path}: {error}') from error
    _check_kinds(config, path)
    folder = work_dir or config.get('work_dir') or str(Path('work_dirs') / path.stem)
    config.work_dir = usable_work_dir(folder)
    return config


def _check_kinds(config: Config, path: Path) -> None:
    """Refuse entries of another kind than every reader of them expects."""
    for place, kind in _KINDS.items():
        node: Any = config._cfg_dict
        *parents, name = place.split('.')
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict) and name in node:
            value, optional = node[name], place in _OPTIONAL_KINDS
            if not (isinstance(value, kind) or (value is None and optional)):
                raise UserError(
                    f'config {path}: {place} is {str(value)[:60]!r}, which is no {kind.__name__}'
                )


def _from_file(path: Path) -> Config:
    """A config from its file; modules beside it can be named in its ``custom_imports``."""
    beside = str(path.parent.resolve())
    if beside not in sys.path:
        sys.path.append(beside)
    return Config.fromfile(path)


def _first(error: BaseException) -> BaseException:
    """The error that others came of: mmengine's are long and do not say what was missing."""
    while before := error.__cause__ or error.__context__:
        error = before
    return error


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Turn ``['a.b=1', ...]`` into ``{'a.b': 1, ...}`` by mmengine's rules.

    Raises:
        UserError: One of them has no ``=`` or an unreadable value.
    """
    overrides: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition('=')
        if not (key and equals):
            raise UserError(f'--cfg-options takes key=value, got {option!r}')
        try:
            overrides[key] = DictAction._parse_iterable(value)
        except (AssertionError, ValueError) as error:
            raise UserError(f'--cfg-options {option}: cannot read the value: {error}') from error
    return overrides


def _check_key(config: Config, key: str) -> None:
    """Refuse an override that is most likely misspelt.

    New keys are legal in mmengine, which makes a typing error pass silently. A new top-level key
    is read by nobody; a new key further down is refused if it resembles one that is there.
    """
    node: Any = config._cfg_dict
    done: list[str] = []
    _refuse_variable(node, key)
    for part in key.split('.'):
        if isinstance(node, (list, tuple)):
            if not (part.isdigit() and int(part) < len(node)):
                where = '.'.join(done)
                raise UserError(
                    f'--cfg-options {key}: {where} is a list of {len(node)}, which {part!r} '
                    'does not index'
                )
            node = node[int(part)]
        elif isinstance(node, dict):
            if part not in node:
                _check_new_key(node, part, key, top=not done)
                return
            node = node[part]
        else:
            raise UserError(f'--cfg-options {key}: {".".join(done)} has no entries, it is {node!r}')
        done.append(part)


def _refuse_variable(entries: dict[str, Any], key: str) -> None:
    """Refuse to override a variable of the config file, whose value has been used already."""
    name = key.partition('.')[0]
    if name not in entries or name in _READ_ENTRIES or name in _OPTIONAL_ENTRIES:
        return
    value = entries[name]
    inner = {place: v for t in _READ_ENTRIES & entries.keys() for place, v in _inner(entries[t], t)}
    places = [place for place in inner if place.rpartition('.')[2] == name]
    if not places and not isinstance(value, (bool, type(None))):
        places = [place for place, v in inner.items() if type(v) is type(value) and v == value]
    if places:
        raise UserError(
            f'--cfg-options {key}: {name} is a variable of the config file, and its value was '
            f'used when the file was read; set what it was used for: {listed(sorted(places), 3)}'
        )


def _inner(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """All entries below an entry by their places."""
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, child in items:
            yield f'{place}.{name}', child
            yield from _inner(child, f'{place}.{name}')


def _check_new_key(node: dict[str, Any], part: str, key: str, top: bool) -> None:
    known = [*node, *_OPTIONAL_ENTRIES] if top else list(node)
    if part in known:
        return
    hint = did_you_mean(part, known, cutoff=0.6 if top else _CLOSE)
    if top or hint:
        raise UserError(f'--cfg-options {key}: the config has no entry {part!r}{hint}')


def require_model(config: Config) -> None:
    """Make sure that a config is not of a dataset alone, or empty.

    Raises:
        UserError: It has no model.
    """
    if not isinstance(config.get('model'), dict):
        raise UserError(f'{config_name(config)} has no model; name another (`mpvit configs`)')


def is_of_classifier(config: Config) -> bool:
    """Whether a config is of an ImageNet classifier.

    Raises:
        UserError: It has no model.
    """
    require_model(config)
    return bool(config.model.get('type') == 'ImageClassifier')


def refuse_classifier(config: Config) -> None:
    """Make sure that a config is of a detector.

    Raises:
        UserError: It is of a classifier, or has no model.
    """
    if is_of_classifier(config):
        raise UserError(
            f'{config_name(config)} is of a classifier: only train, test and '
            'convert_checkpoint take it, and without --data; name one of a detector'
        )


def evaluators(config: Config, split: str) -> list[ConfigDict]:
    """Configs of the evaluators of a split, of which a config has one or a list."""
    found = config.get(f'{split}_evaluator') or []
    return found if isinstance(found, list) else [found]


def leaf_datasets(dataset: ConfigDict) -> Iterator[ConfigDict]:
    """The datasets inside wrappers such as ``RepeatDataset`` or ``ConcatDataset``."""
    inner: Iterable[ConfigDict] = dataset.get('datasets') or filter(None, [dataset.get('dataset')])
    children = list(inner)
    if not children:
        yield dataset
    for child in children:
        yield from leaf_datasets(child)
