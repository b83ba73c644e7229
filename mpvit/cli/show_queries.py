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
    place: Any = dict(dest='figure', required=True)
    types.option(parser, '--out', new_picture, 'FILE', 'picture: png, jpg, pdf or svg', **place)
    types.option(parser, '--layer', int, 'N', 'decoder layer from 0, or from the end', -1)
    text = 'detections to draw, best first'
    types.option(parser, '--top', types.number(int, 1, 50), 'K', text, 6)
    types.add_device(parser)


def run(figure: str, **arguments: Any) -> None:
    """Detect and draw."""
    import mpvit.register  # noqa: F401
    from mpvit.visualization.queries import show_queries

    print(f'{figure}: {", ".join(show_queries(figure=figure, **arguments))}')
