"""Evaluate a checkpoint on the test set of a config."""

import argparse
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.files.paths import output_folder, pickle_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    types.add_run(parser)
    types.add_checkpoint(parser)
    text = 'what to evaluate, which the config says already'
    types.choice(parser, '--eval', ['bbox', 'accuracy'], text)
    parser.add_argument('--classwise', action='store_true', help='also report every class')
    text = 'write the raw detections as a pickle'
    types.option(parser, '--out', pickle_file, 'FILE.pkl', text)
    types.option(parser, '--show-dir', output_folder, 'DIR', 'write pictures with the detections')
    types.add_inference(parser)
    types.add_data(parser, 'val')


def run(eval: str, **arguments: Any) -> None:
    """Evaluate what the config says: box AP, or the accuracy of a classifier."""
    import mpvit.register  # noqa: F401
    from mpvit.engine.test import evaluate

    evaluate(**arguments)
