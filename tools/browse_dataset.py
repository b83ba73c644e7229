"""Look at a dataset before and after augmentation: CONFIG [--data DIR] --out DIR."""

import argparse
from typing import Any

from _cli import add_data, parse, run


def main() -> None:
    """Parse arguments and draw contact sheets."""
    parser = argparse.ArgumentParser(
        description='Draw contact sheets of a dataset: images as they are annotated, beside what '
        'the detector is fed (docs/browse.md).'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--out', required=True, dest='sheets', metavar='DIR', help='folder for the sheets'
    )
    parser.add_argument(
        '--split', choices=['train', 'val'], default='train', help='which images (default: train)'
    )
    parser.add_argument('--count', type=int, default=12, metavar='N', help='images (default: 12)')
    parser.add_argument(
        '--draws',
        type=int,
        metavar='N',
        help='how often each image is augmented (default: 3 for train, 1 for val)',
    )
    parser.add_argument(
        '--classes', nargs='+', default=[], metavar='NAME', help='only images with one of these'
    )
    parser.add_argument('--seed', type=int, default=0, help='same seed, same pictures (default: 0)')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='override config entries'
    )
    add_data(parser, 'train', 'val')
    arguments = parse(parser, lambda given: _check_numbers(parser, given))

    def browse() -> None:
        from mpvit.browse import browse_dataset

        print('\n'.join(map(str, browse_dataset(**arguments))))

    run(browse)


def _check_numbers(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    if arguments['draws'] is not None and not 1 <= arguments['draws'] <= 8:
        parser.error('--draws must be from 1 to 8')
    if arguments['seed'] < 0:
        parser.error('--seed must be 0 or more')


if __name__ == '__main__':
    main()
