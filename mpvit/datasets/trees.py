"""A small COCO-format dataset of real photographs: tree crowns seen from the air.

The photographs and boxes are those that the package deepforest ships
(https://github.com/Weecology/DeepForest, MIT). It is read as an archive, never run.
"""

import io
import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from mpvit.datasets.tiles import tiles
from mpvit.errors import UserError
from mpvit.files.untrusted import holds
from mpvit.files.wheels import Wheel, contents, fetched
from mpvit.files.writing import NotWritten, check_writable, whole_folder

CLASSES = ('tree',)
WHEEL = Wheel(
    'deepforest', '2.1.0', '8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54'
)
_PHOTOS = dict(  # the larger one to train on
    train='deepforest/data/2019_YELL_2_528000_4978000_image_crop2',
    val='deepforest/data/2019_YELL_2_541000_4977000_image_crop',
)
_LICENCE = 'deepforest-2.1.0.dist-info/licenses/LICENSE'
_MARKER = 'trees.json'
_SIDE = 400  # of a tile in pixels; half of the crowns are less than 41 wide


def write_trees_dataset(root: str | os.PathLike[str]) -> Path:
    """Write the dataset, unless it is there; return ``root``.

    One photograph is for training and another for validation, each cut into tiles of about 400
    pixels; those for training overlap by half. The folder appears in one step when it is complete.

    Args:
        root: Folder to write: ``annotations/instances_{train,val}.json``, ``train/``, ``val/``
            and ``LICENSE``, the terms of the photographs and boxes.

    Raises:
        UserError: The folder holds something else, or the wheel cannot be had.
    """
    root = Path(root)
    if _is_complete(root):
        return root
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise UserError(f'{root} holds other files; name another folder')
    check_writable(root, folder=True)
    names = [f'{photo}{suffix}' for photo in _PHOTOS.values() for suffix in ('.png', '.xml')]
    files = contents(fetched(WHEEL), [*names, _LICENCE])
    try:
        with whole_folder(root) as work:
            for split, photo in _PHOTOS.items():
                _write_split(work, split, files[f'{photo}.png'], files[f'{photo}.xml'])
            (work / 'LICENSE').write_bytes(files[_LICENCE])
            (work / _MARKER).write_bytes(_origin().encode())
    except NotWritten:
        if not _is_complete(root):  # another process may have been faster
            raise
    return root


def _origin() -> str:
    """What the dataset is made of; ``version`` changes when the code here changes the files."""
    source = dict(package=f'{WHEEL.package} {WHEEL.version}', sha256=WHEEL.sha256, licence='MIT')
    return json.dumps(dict(**source, photographs=_PHOTOS, version=1), indent=2)


def _is_complete(root: Path) -> bool:
    return holds(root / _MARKER, _origin())


def _write_split(root: Path, split: str, picture: bytes, xml: bytes) -> None:
    (root / split).mkdir()
    (root / 'annotations').mkdir(exist_ok=True)
    photo = Image.open(io.BytesIO(picture)).convert('RGB')
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for tile in tiles(photo.size, _boxes(xml), _SIDE, overlapping=split == 'train'):
        left, top, right, bottom = tile.place
        name = f'{split}_{left:04d}_{top:04d}.jpg'
        photo.crop(tile.place).save(root / split / name, quality=95)
        image_id = len(images) + 1
        size = dict(height=bottom - top, width=right - left)
        images.append(dict(id=image_id, file_name=name, **size))
        for x1, y1, x2, y2 in tile.boxes.tolist():
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=1,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def _boxes(xml: bytes) -> list[list[int]]:
    """Boxes ``(x1, y1, x2, y2)`` of a file in Pascal VOC format.

    The sha256 tells that it is the known file, so that the parser need not be armed against
    others. Coordinates are taken as they are, as deepforest itself does.
    """
    corners = [f'bndbox/{corner}' for corner in ('xmin', 'ymin', 'xmax', 'ymax')]
    objects = ElementTree.fromstring(xml).iter('object')
    return [[int(entry.findtext(corner, '')) for corner in corners] for entry in objects]
