"""Convert a checkpoint from official form or Hugging Face's to ours, or back."""

import argparse
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.errors import printable
from mpvit.files.paths import new_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'source',
        type=types.checkpoint,
        metavar='IN',
        help='file to read, or a name of `mpvit weights`',
    )
    parser.add_argument(
        'target', type=new_file, metavar='OUT', help='file to write, such as x.pth or x.safetensors'
    )
    types.choice(parser, '--to', ['ours', 'official', 'huggingface'], 'form of OUT')
    parser.add_argument(
        '--ema', action='store_true', help='take the moving average (EMA) of the weights'
    )
    parser.add_argument('--sha256', metavar='HEX', help='expected sha256 of IN, or its beginning')
    parser.add_argument(
        '--config', type=types.config, help='config of a model whose tensors must all be there'
    )


def run(config: str | None = None, **arguments: Any) -> None:
    """Convert, and say what became of every tensor."""
    import mpvit.register  # noqa: F401
    from mpvit.checkpoints.conversion import convert_file
    from mpvit.config.reading import load_config, require_model

    if config:
        cfg = load_config(config)
        require_model(cfg)
        arguments |= dict(model=cfg.model, scope=cfg.get('default_scope', 'mmdet'))
    report = convert_file(**arguments)
    lines = [*report.lines(), f'written to {arguments["target"]}']
    print('\n'.join(map(printable, lines)))
