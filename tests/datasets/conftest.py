"""A small clean dataset in COCO format, to be spoiled."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from PIL import Image
from spoiling import CLASSES

from mpvit.datasets.check import Split, inspect_dataset

SIZE = (64, 48)


@pytest.fixture(scope='session')
def build_dataset():
    """Builds an `OfficialCocoDataset` that leaves no image out."""

    def build(ann_file, images, classes, **options):
        init_default_scope('mmdet')
        settings = dict(
            type='OfficialCocoDataset',
            ann_file=str(ann_file),
            data_prefix=dict(img=str(images)),
            metainfo=dict(classes=classes),
            filter_cfg=dict(filter_empty_gt=False, min_size=0),
            pipeline=[],
        )
        return DATASETS.build(settings | options)

    return build


class Spoilable:
    """A dataset whose parts are changed before it is checked.

    Attributes:
        train: Content of the training file.
        val: Content of the validation file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.train, self.val = (
            json.loads((root / f'{role}.json').read_text()) for role in ('train', 'val')
        )

    def image(self, index: int, role: str = 'train') -> Path:
        """Path of an image file."""
        return self.root / role / f'{index:02d}.png'

    def save(self) -> None:
        """Write the annotation files; content may also be raw bytes, or None for no file."""
        for role in ('train', 'val'):
            content = getattr(self, role)
            path = self.root / f'{role}.json'
            path.unlink(missing_ok=True)
            if content is not None:
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                path.write_bytes(raw)

    def inspect(self, workers=1, **arguments):
        """Save and inspect."""
        self.save()
        splits = (Split(self.root / f'{role}.json', self.root / role) for role in ('train', 'val'))
        return inspect_dataset(*splits, workers=workers, **arguments)

    def check(self, **arguments):
        """Save and check."""
        return self.inspect(**arguments).problems


@pytest.fixture(scope='session')
def clean_dataset(tmp_path_factory):
    """Twelve images to train on, four to validate with, three boxes in each."""
    root = tmp_path_factory.mktemp('clean')
    rng = np.random.default_rng(0)
    width, height = SIZE
    for role, count in (('train', 12), ('val', 4)):
        (root / role).mkdir()
        images, annotations = [], []
        for index in range(count):
            name = f'{index:02d}.png'
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(root / role / name)
            images.append(dict(id=100 + index, file_name=name, width=width, height=height))
            for category in (1, 2, 3):
                box = [5.5 * category, 4.25 * category, 20 + index, 15.5]
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=100 + index,
                        category_id=category,
                        bbox=box,
                        area=box[2] * box[3],
                        iscrowd=0,
                    )
                )
        categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / f'{role}.json').write_text(json.dumps(content))
    return root


@pytest.fixture
def spoilable(clean_dataset, tmp_path):
    """A copy of the clean dataset."""
    return Spoilable(Path(shutil.copytree(clean_dataset, tmp_path / 'data')))
