"""Draw contact sheets of a dataset, before and after augmentation.

Images as they are annotated stand beside what the detector is fed (docs/browse.md).
"""

import argparse
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.files.paths import output_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('config', type=types.config, help='config file, or name of one')
    place: Any = dict(dest='sheets', required=True)
    types.option(parser, '--out', output_folder, 'DIR', 'folder for the sheets', **place)
    types.choice(parser, '--split', ['train', 'val'], 'which images')
    types.option(parser, '--count', types.count, 'N', 'images', 12)
    text = 'how often each image is augmented (default: 3 for train, 1 for val)'
    types.option(parser, '--draws', types.number(int, 1, 8), 'N', text)
    parser.add_argument(
        '--classes', nargs='+', default=[], metavar='NAME', help='only images with one of these'
    )
    types.option(parser, '--seed', types.number(int, 0), 'N', 'same seed, same pictures', 0)
    types.add_options(parser)
    types.add_data(parser, 'train', 'val')


def run(**arguments: Any) -> None:
    """Draw the sheets."""
    import mpvit.register  # noqa: F401
    from mpvit.visualization.dataset_browser import browse_dataset

    print('\n'.join(map(str, browse_dataset(**arguments))))
