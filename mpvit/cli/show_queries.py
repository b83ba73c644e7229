"""Draw what the queries of a decoder layer look at.

The picture shows the sampling points of the best detections on an image (docs/queries.md).
"""

import argparse
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.files.paths import new_picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    types.add_detector(parser)
    parser.add_argument('image', type=types.image, help='image file')
    parser.add_argument(
        '--out',
        required=True,
        dest='figure',
        type=new_picture,
        metavar='FILE',
        help='picture: png, jpg, pdf or svg',
    )
    parser.add_argument(
        '--layer', type=int, default=-1, metavar='N', help='decoder layer from 0 (default: last)'
    )
    parser.add_argument(
        '--top',
        type=types.number(int, 1, 50),
        default=6,
        metavar='K',
        help='detections to draw, best first (default: 6)',
    )
    types.add_device(parser)


def run(figure: str, **arguments: Any) -> None:
    """Detect and draw."""
    import mpvit.register  # noqa: F401
    from mpvit.visualization.queries import show_queries

    print(f'{figure}: {", ".join(show_queries(figure=figure, **arguments))}')
