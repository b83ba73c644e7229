"""Draw contact sheets of a dataset, before and after augmentation.

Images as they are annotated stand beside what the detector is fed (docs/browse.md).
"""

import argparse
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.files.paths import work_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('config', type=types.config, help='config file, or name of one')
    parser.add_argument(
        '--out',
        required=True,
        dest='sheets',
        type=work_dir,
        metavar='DIR',
        help='folder for the sheets',
    )
    parser.add_argument(
        '--split', choices=['train', 'val'], default='train', help='which images (default: train)'
    )
    parser.add_argument(
        '--count', type=types.count, default=12, metavar='N', help='images (default: 12)'
    )
    parser.add_argument(
        '--draws',
        type=types.number(int, 1, 8),
        metavar='N',
        help='how often each image is augmented (default: 3 for train, 1 for val)',
    )
    parser.add_argument(
        '--classes', nargs='+', default=[], metavar='NAME', help='only images with one of these'
    )
    parser.add_argument(
        '--seed',
        type=types.number(int, 0),
        default=0,
        help='same seed, same pictures (default: 0)',
    )
    types.add_options(parser)
    types.add_data(parser, 'train', 'val')


def run(**arguments: Any) -> None:
    """Draw the sheets."""
    import mpvit.register  # noqa: F401
    from mpvit.visualization.dataset_browser import browse_dataset

    print('\n'.join(map(str, browse_dataset(**arguments))))
