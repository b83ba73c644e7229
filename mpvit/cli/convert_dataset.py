"""Write a COCO-format copy of a dataset in YOLO or Pascal VOC format."""

import argparse

from mpvit.errors import printable
from mpvit.files.paths import existing_folder, new_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('data', type=existing_folder, metavar='DIR', help='folder of the dataset')
    parser.add_argument(
        'target', type=new_file, metavar='OUT', help='folder to write, which does not exist yet'
    )


def run(data: str, target: str) -> None:
    """Convert, and say what was written."""
    from mpvit.datasets.conversion import convert_dataset

    lines = [*convert_dataset(data, target), f'written to {target}']
    print('\n'.join(map(printable, lines)))
