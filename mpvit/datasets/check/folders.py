"""Where the annotation files and images of a dataset are, by the name of its folder alone."""

import os
from pathlib import Path

from mpvit.datasets.check.table import Split
from mpvit.errors import UserError


def find_splits(folder: str | os.PathLike[str]) -> tuple[Split, Split | None]:
    """Find the splits of a folder in the layout of COCO 2017 or of Roboflow.

    Args:
        folder: The dataset.

    Returns:
        Training and, if there is one, validation data.

    Raises:
        UserError: The folder is not there, or laid out in another way.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f'dataset folder {root} not found')
    train = _split(root, 'train')
    if train is None:
        raise UserError(
            f'{root} holds neither annotations/instances_train2017.json nor '
            'train/_annotations.coco.json; name the files with --train-ann and --train-images'
        )
    return train, _split(root, 'val') or _split(root, 'valid')


def _split(root: Path, name: str) -> Split | None:
    layouts = [
        (root / 'annotations' / f'instances_{name}2017.json', root / f'{name}2017'),
        (root / name / '_annotations.coco.json', root / name),
    ]
    return next((Split(file, images) for file, images in layouts if file.is_file()), None)
