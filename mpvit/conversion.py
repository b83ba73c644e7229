"""From a checkpoint file in one form to a file in the other."""

import copy
import os

import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mpvit.checkpoints.compatibility import check_fit
from mpvit.checkpoints.conversion import Report, to_official, to_ours
from mpvit.checkpoints.loading import read
from mpvit.config.reading import load_config
from mpvit.errors import UserError
from mpvit.files.paths import new_file


def convert_checkpoint(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    to: str = 'ours',
    ema: bool = False,
    sha256: str | None = None,
    config: str | None = None,
) -> Report:
    """Convert a checkpoint file.

    Args:
        source: File to read.
        target: File to write.
        to: 'ours' or 'official'.
        ema: Take the exponential moving average of the weights.
        sha256: Expected sha256 of ``source`` in hex, or its beginning; None for no check.
        config: Config of a detector whose tensors the converted file must have; None for no
            check. Without it, only the names are known to be right.

    Returns:
        What was done with every tensor.

    Raises:
        UserError: The file cannot be read or converted, or ``target`` exists.
    """
    new_file(target)
    checkpoint = read(source, sha256=sha256)
    try:
        converted = to_ours(checkpoint, ema) if to == 'ours' else to_official(checkpoint, ema)
        if converted is None:
            raise UserError('it is in no known official form')
        result, report = converted
        if config is not None:
            _check(result if to == 'ours' else checkpoint, config)
    except UserError as error:
        raise UserError(f'{source}: {error}') from error
    torch.save(result, target)
    return report


def _check(checkpoint: dict[str, object], config: str) -> None:
    cfg = load_config(config)
    init_default_scope('mmdet')
    check_fit(checkpoint, MODELS.build(copy.deepcopy(cfg.model)).state_dict())
