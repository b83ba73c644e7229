"""Write a small dataset to try things on: toy (drawn) or trees (photographs).

The toy dataset shows shapes and digits. The trees are aerial photographs with boxes of tree crowns
from the package deepforest 2.1.0 (MIT), which pip downloads once, 20 MB (docs/data.md).
"""

import argparse
import shlex
from pathlib import Path

from mpvit.files.paths import work_dir

NAMES = ('toy', 'trees')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('name', choices=NAMES, help='which dataset')
    text = 'folder to write (default: data/toy, data/trees)'
    parser.add_argument('target', nargs='?', type=work_dir, metavar='DIR', help=text)


def run(name: str, target: str | None) -> None:
    """Write the dataset unless it is there, and say what there is."""
    from mpvit.datasets.toy import write_toy_dataset
    from mpvit.datasets.trees import write_trees_dataset

    root = Path(target or f'data/{name}')
    before = (root / f'{name}.json').is_file()
    (write_toy_dataset if name == 'toy' else write_trees_dataset)(root)
    print(f'{root} holds the dataset already' if before else f'written to {root}')
    print_counts(root)
    words = ['mpvit_t_dino_toy', '--data', str(root), '--out', f'out/{root.name}']
    print(f'look at it: mpvit browse_dataset {shlex.join(words)}')


def print_counts(root: Path) -> None:
    """Say how many images and boxes each split of a dataset has."""
    from mpvit.datasets.annotations import read_annotations
    from mpvit.datasets.layout import find_training_data

    for split, files in find_training_data(root).splits.items():
        table = read_annotations(files.ann_file)
        print(f'{split}: {len(table.images)} images, {len(table.annotations)} boxes')
