"""Convert a checkpoint from official form to ours, or back."""

import argparse

from mpvit.cli import _arguments as types
from mpvit.errors import UserError
from mpvit.files.paths import existing_checkpoint, new_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('source', type=existing_checkpoint, metavar='IN', help='file to read')
    parser.add_argument('target', type=new_file, metavar='OUT', help='file to write')
    parser.add_argument(
        '--to', choices=['ours', 'official'], default='ours', help='form of OUT (default: ours)'
    )
    parser.add_argument(
        '--ema', action='store_true', help='take the moving average (EMA) of the weights'
    )
    parser.add_argument('--sha256', metavar='HEX', help='expected sha256 of IN, or its beginning')
    parser.add_argument(
        '--config', type=types.config, help='config of a detector whose tensors must all be there'
    )


def run(
    source: str,
    target: str,
    to: str = 'ours',
    ema: bool = False,
    sha256: str | None = None,
    config: str | None = None,
) -> None:
    """Convert, and say what became of every tensor.

    Raises:
        UserError: The file cannot be read or converted, or has other tensors than the config.
    """
    import torch
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    import mpvit.register  # noqa: F401
    from mpvit.checkpoints.compatibility import check_fit
    from mpvit.checkpoints.conversion import to_official, to_ours
    from mpvit.checkpoints.reading import read
    from mpvit.config.reading import load_config

    checkpoint = read(source, sha256=sha256)
    try:
        converted = to_ours(checkpoint, ema) if to == 'ours' else to_official(checkpoint, ema)
        if converted is None:
            raise UserError('it is in no known official form')
        result, report = converted
        if config is not None:  # without it, only the names are known to be right
            init_default_scope('mmdet')
            model = MODELS.build(load_config(config).model)
            check_fit(result if to == 'ours' else checkpoint, model.state_dict())
    except UserError as error:
        raise UserError(f'{source}: {error}') from error
    torch.save(result, target)
    print('\n'.join([*report.lines(), f'written to {target}']))
