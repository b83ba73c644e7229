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
