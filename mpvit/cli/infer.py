"""Detect in images and videos, draw what is found and list it as JSON and CSV.

See docs/inference.md. Exit status: 0; 1 after an error or if inputs could not be read or drawn,
which does not keep the others from being written; 2 for wrong arguments.
"""

import argparse
import warnings
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.errors import printable
from mpvit.files.paths import new_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    types.add_detector(parser)
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help="image, video, folder with all in it, pattern such as 'photos/**/*.jpg', URL, number "
        'of a camera, or address of a stream',
    )
    text = 'new folder for the results (default: infer, infer_2, ... in work_dirs/<config name>)'
    types.option(parser, '--out', new_folder, 'DIR', text, dest='out_dir')
    parser.add_argument(
        '--no-pictures', dest='pictures', action='store_false', help='write JSON and CSV only'
    )
    types.add_threshold(parser, 'lowest score of a detection')
    parser.add_argument(
        '--classes', nargs='+', metavar='NAME', help='detect these classes only (default: all)'
    )
    types.option(parser, '--batch-size', types.positive, 'N', 'images at once', 1)
    text = 'look at large images in overlapping square tiles with this side'
    types.option(parser, '--tile', types.number(int, 32), 'PIXELS', text)
    types.add_inference(parser)
    types.add_device(parser)


def run(**arguments: Any) -> None:
    """Detect."""
    from mpvit.inference.inputs import find

    find(arguments['inputs'])
    warnings.simplefilter('ignore')  # deprecations inside the libraries, nothing to act on
    import mpvit.register  # noqa: F401
    from mpvit.inference.outputs import infer

    infer(**arguments, say=lambda line: print(printable(line)))
