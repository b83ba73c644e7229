"""Draw what the queries of a decoder layer look at: CONFIG CHECKPOINT IMAGE --out FILE.png."""

import argparse

from _cli import parse, run


def main() -> None:
    """Parse arguments, detect and draw."""
    parser = argparse.ArgumentParser(
        description='Draw the sampling points of the best detections on an image (docs/queries.md).'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('image', help='image file')
    parser.add_argument(
        '--out', required=True, dest='figure', metavar='FILE', help='picture: png, jpg, pdf or svg'
    )
    parser.add_argument(
        '--layer', type=int, default=-1, metavar='N', help='decoder layer from 0 (default: last)'
    )
    parser.add_argument(
        '--top', type=int, default=6, metavar='K', help='detections to draw, best first (default 6)'
    )
    parser.add_argument('--device', help='such as cuda:1 (default: a GPU where there is one)')
    arguments = parse(parser, lambda given: _check_top(parser, given['top']))

    def show() -> None:
        from mpvit.sampling_points import show_queries

        print(f'{arguments["figure"]}: {", ".join(show_queries(**arguments))}')

    run(show)


def _check_top(parser: argparse.ArgumentParser, top: int) -> None:
    if not 1 <= top <= 50:
        parser.error('--top must be from 1 to 50')


if __name__ == '__main__':
    main()
