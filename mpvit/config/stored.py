"""The config that a checkpoint was trained with, read as data: nothing in it is executed."""

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mpvit.checkpoints.reading import read
from mpvit.config.harmless import check_harmless, leave_out_places
from mpvit.config.literals import NOT_DATA, literal_entries
from mpvit.errors import UserError
from mpvit.files.paths import newest_config
from mpvit.files.untrusted import TEXT_BYTES, read_untrusted, trusted

_HOLDER = '_checkpoint_that_holds_it'


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
    text = read_untrusted(beside, TEXT_BYTES).decode(errors='replace') if beside else None
    exported = checkpoint.suffix in ('.onnx', '.xml', '.engine', '.pt2')
    inside = None if exported else _text_inside(checkpoint)
    text = inside or text
    hint = f'name the config first: CONFIG {checkpoint}'
    if text is None:
        raise UserError(f'{checkpoint} does not say which config it was trained with; {hint}')
    try:
        entries = literal_entries(text)
        if not trusted():
            check_harmless(entries)
        if not isinstance(entries.get('model'), dict):
            raise ValueError('it has no model')
        leave_out_places(entries)
    except NOT_DATA as error:
        raise UserError(
            f'the config of {checkpoint} cannot be used as data: '
            f'{str(error) or type(error).__name__}; {hint}'
        ) from error
    name = str(beside or checkpoint.with_suffix('.py'))
    config = Config(entries, cfg_text=text, filename=name)
    config.work_dir = str(checkpoint.parent) if beside else None
    config.load_from, config.resume = None, False
    if inside:
        config.__dict__[_HOLDER] = str(checkpoint)  # mmengine's copies have it too
    return config


def config_name(config: Config) -> str:
    """How messages name a config: by its file, or by the checkpoint that holds it."""
    holder = config.__dict__.get(_HOLDER)
    return f'the config in {holder}' if holder else f'config {config.filename}'


def renamed(config: Config, filename: str) -> Config:
    """The same config under another name of file; its entries are shared."""
    other = Config(config._cfg_dict, cfg_text=config.text, filename=filename)
    other.__dict__[_HOLDER] = config.__dict__.get(_HOLDER)
    return other


def stored_entries(checkpoint: Path) -> dict[str, Any]:
    """The entries of the config in a checkpoint, as plain values for looking at, not for building.

    Empty if there is none that could be read.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    try:
        return literal_entries(_text_inside(checkpoint) or '')
    except NOT_DATA:
        return {}


def _text_inside(checkpoint: Path) -> str | None:
    meta = read(checkpoint).get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    return text if isinstance(text, str) else None


def own_config_hint(checkpoint: str | os.PathLike[str] | None, used: Config) -> str:
    """The end of a message about a checkpoint that does not fit the config that was used.

    It names the config that lies beside the checkpoint, if that is another.
    """
    if checkpoint is None or not os.path.isfile(checkpoint):
        return ''
    beside = newest_config(Path(checkpoint).parent)
    other = beside is not None and os.path.realpath(used.filename or '') != os.path.realpath(beside)
    return f'; the config beside it is {beside}' if other else ''
