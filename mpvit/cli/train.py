"""Train a detector."""

import argparse
from typing import Any

from mpvit.cli import _arguments as types


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    types.add_run(parser)
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=['auto', 'bf16', 'fp16'],
        metavar='bf16|fp16',
        help='mixed precision; without a value fp16 on a GPU and bf16 on a CPU',
    )
    parser.add_argument(
        '--auto-scale-lr',
        nargs='?',
        const='linear',
        choices=['linear', 'sqrt', 'off'],
        metavar='linear|sqrt|off',
        help='how the learning rate follows the images of a step (default: as in the config)',
    )
    start = parser.add_mutually_exclusive_group()
    text = 'weights of the backbone to start from: a file, a URL, or a name of `mpvit weights`'
    types.option(start, '--pretrained', types.backbone_weights, 'FILE|URL|NAME', text)
    start.add_argument(
        '--from-scratch', action='store_true', help='start the backbone from random numbers'
    )
    text = "a detector to start from: a file, a URL, a name of `mpvit weights`, or 'official'"
    types.option(start, '--load-from', types.checkpoint, 'CHECKPOINT', text)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        type=types.resumable,
        metavar='CHECKPOINT',
        help='resume from a checkpoint, or without a value from the newest in the work folder',
    )
    parser.add_argument(
        '--track',
        nargs='+',
        choices=['wandb', 'mlflow'],
        default=[],
        metavar='wandb|mlflow',
        help='record also with Weights & Biases or MLflow; TensorBoard always is',
    )
    types.add_data(parser, 'train', 'val')


def run(**arguments: Any) -> None:
    """Train."""
    import mpvit.register  # noqa: F401
    from mpvit.engine.train import train

    train(**arguments)
