"""YOLO- and Pascal-VOC-format folders made into a COCO-format dataset by `supervision`.

The library reads and writes the formats. What is done here: the folders of the splits are found,
the splits of a VOC dataset, whose files have no list of classes, get the same one, and labels are
handed to the library a file at a time and without masks: of each polygon in a dataset it would keep
one of the size of the image.
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tqdm import tqdm

from mpvit.datasets.layout import SPLITS, other_format, scan, split_of
from mpvit.errors import UserError, optional
from mpvit.files.exif import orientation
from mpvit.files.paths import is_image
from mpvit.files.untrusted import (
    TEXT_BYTES,
    YAML_BYTES,
    check_regular,
    open_image,
    parse_yaml,
    read_untrusted,
)
from mpvit.files.writing import whole_folder


def convert_dataset(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> list[str]:
    """Write a COCO-format copy of a dataset, images included, and say in lines what was written.

    The folder appears in one step when it is complete.

    Args:
        source: Folder in YOLO format (``data.yaml``, ``images`` and ``labels``) or in Pascal VOC's
            (``Annotations``, ``JPEGImages`` and ``ImageSets/Main``, or images and XML files in
            folders named after the splits).
        target: Folder to write, which does not exist yet: ``annotations/instances_<split>.json``
            and ``<split>/``.

    Raises:
        UserError: The library is missing, the folder is in neither format, or a file is broken.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise UserError(f'{target} exists already; choose another name')
    library = optional('supervision', 'conversions of datasets')
    kind = other_format(source)
    if kind is None:
        raise UserError(f'{source} is in neither YOLO nor Pascal VOC format (docs/data.md)')
    try:
        datasets = (_read_yolo if kind == 'YOLO' else _read_voc)(library, source)
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: broken XML
        reason = str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = f'{error.filename}: {error.strerror}'
        raise UserError(f'{source} cannot be read as {kind}: {reason}') from error
    lines = [f'{source} is in {kind} format']
    try:
        with whole_folder(target) as work:
            _write(datasets, work)
    except (OSError, ValueError) as error:  # of the images that are copied
        raise UserError(f'{source} cannot be copied: {error}') from error
    for split, dataset in datasets.items():
        boxes = sum(len(found) for found in dataset.annotations.values())
        lines.append(f'{split}: {len(dataset)} images, {boxes} boxes')
    turned = 0
    for path in (path for dataset in datasets.values() for path in dataset.image_paths):
        with open_image(path) as image:
            turned += orientation(image) != 1
    if turned:
        lines.append(
            f'{turned} images are turned by their EXIF orientation, for which the boxes were taken '
            'to be meant: train with color_type=color (docs/data.md)'
        )
    return lines


def _write(datasets: Mapping[str, Any], folder: Path) -> None:
    next_ids = (1, 1)
    for split, dataset in datasets.items():
        next_ids = dataset.as_coco(
            str(folder / split),
            str(folder / 'annotations' / f'instances_{split}.json'),
            starting_image_id=next_ids[0],
            starting_annotation_id=next_ids[1],
            show_progress=sys.stderr.isatty(),
        )


def _read_yolo(library: Any, root: Path) -> dict[str, Any]:
    files = [*root.glob('*.yaml'), *root.glob('*.yml')]
    files = [path for path in files if path.stem == 'data'] or files
    if len(files) != 1:
        raise UserError(f'{root} needs one data.yaml with the names of the classes')
    content = read_untrusted(files[0], YAML_BYTES)
    try:
        settings = parse_yaml(content)
    except ValueError as error:
        raise UserError(f'{files[0]} cannot be read: {error}') from error
    datasets = {}
    for split, images in _image_folders(root).items():
        labels = _beside(root, images, 'images', 'labels', '*.txt')
        _check_files(images, labels, '*.txt')
        with TemporaryDirectory() as empty:
            dataset = library.DetectionDataset.from_yolo(str(images), empty, str(files[0]))
        keypoints = math.prod(settings.get('kpt_shape', [0]))  # which the library has checked
        for path, label in _labelled(dataset.image_paths, labels, '.txt'):
            dataset.annotations[path] = _yolo_boxes(path, label, int(keypoints))
        dataset = type(dataset)(dataset.classes, dataset.image_paths, dataset.annotations)
        datasets[split] = _part(dataset, sorted(dataset.image_paths), dataset.classes)
    return datasets


def _yolo_boxes(path: str, label: Path, keypoints: int) -> Any:
    """The boxes of an image, also around polygons; after a box may stand numbers of keypoints."""
    from supervision.dataset.formats.yolo import yolo_annotations_to_detections

    with open_image(path) as image:
        size = image.size[::-1] if orientation(image) >= 5 else image.size
    lines = []
    for line in read_untrusted(label, TEXT_BYTES).decode().splitlines():
        values = line.split()
        if values:
            lines.append(' '.join(values[:5] if len(values) == 5 + keypoints else values))
    try:
        return yolo_annotations_to_detections(lines, size, with_masks=False)
    except ValueError as error:
        raise ValueError(f'{label}: {error}') from error


def _labelled(images: Sequence[str], labels: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """The images that have a file of labels, and that file."""
    for path in tqdm(images, 'reading labels', disable=None):
        label = labels / f'{Path(path).stem}{suffix}'
        if label.exists():
            yield path, label


def _read_voc(library: Any, root: Path) -> dict[str, Any]:
    lists = {
        path.stem: set(read_untrusted(path, TEXT_BYTES).decode().split())
        for path in root.glob('ImageSets/Main/*.txt')
        if path.stem in SPLITS
    }
    if lists:
        images = next(filter(Path.is_dir, (root / 'JPEGImages', root / 'images')), None)
        if images is None:
            raise UserError(f'{root} has no folder JPEGImages or images')
        whole = _voc_folder(library, images, root / 'Annotations')
        parts = {}
        for split, names in lists.items():
            paths = [path for path in whole.image_paths if Path(path).stem in names]
            parts[split] = _part(whole, paths, sorted(whole.classes))
        return parts
    parts = {}
    for split, images in _image_folders(root).items():
        annotations = _beside(root, images, 'JPEGImages', 'Annotations', '*.xml')
        parts[split] = _voc_folder(library, images, annotations)
    classes = sorted({name for dataset in parts.values() for name in dataset.classes})
    return {split: _part(part, part.image_paths, classes) for split, part in parts.items()}


def _voc_folder(library: Any, images: Path, annotations: Path) -> Any:
    from defusedxml.ElementTree import parse
    from supervision.dataset.formats.pascal_voc import detections_from_xml_obj

    _check_files(images, annotations, '*.xml')
    with TemporaryDirectory() as empty:
        dataset = library.DetectionDataset.from_pascal_voc(str(images), empty)
    classes: list[str] = []
    for path, label in _labelled(dataset.image_paths, annotations, '.xml'):
        content = parse(label).getroot()
        for entry in content.findall('object'):
            entry[:] = [part for part in entry if part.tag != 'polygon']
        found, classes = detections_from_xml_obj(content, classes, (0, 0))  # no masks of any size
        dataset.annotations[path] = found
    return type(dataset)(classes, dataset.image_paths, dataset.annotations)


def _check_files(images: Path, annotations: Path, kind: str) -> None:
    """Make sure of the files of a folder before the library opens them."""
    for path in annotations.glob(kind):
        check_regular(path, TEXT_BYTES)
    for path in sorted(filter(is_image, images.iterdir())):
        try:
            with open_image(path):
                pass
        except UserError:
            raise
        except Exception as error:  # each format has errors of its own
            reason = isinstance(error, OSError) and error.strerror
            raise UserError(f'{path} cannot be read: {reason or error}') from error


def _part(dataset: Any, paths: list[str], classes: list[str]) -> Any:
    """Some of the images of a dataset, with classes numbered as in ``classes``."""
    first = {name: number for number, name in reversed([*enumerate(classes)])}
    number = np.array([first[name] for name in dataset.classes], int)
    annotations = {}
    for path in paths:
        found = dataset.annotations[path]
        if len(found):
            found.class_id = number[found.class_id]
        annotations[path] = found
    return type(dataset)(classes=classes, images=paths, annotations=annotations)


def _image_folders(root: Path) -> dict[str, Path]:
    """Folders with images by the split they are named after."""
    found: dict[str, list[Path]] = {}
    for folder in scan(root)[0]:
        names = reversed(folder.relative_to(root).parts)
        split = next((split for split in map(split_of, names) if split), None)
        if split and any(map(is_image, folder.iterdir())):
            found.setdefault(split, []).append(folder)
    for split, folders in found.items():
        if len(folders) > 1:
            raise UserError(
                f'{root} has several folders of {split} images: {", ".join(map(str, folders))}'
            )
    if not found:
        raise UserError(f'{root} has no folder named after a split, such as train or images/train')
    return {split: found[split][0] for split in SPLITS if split in found}


def _beside(root: Path, images: Path, name: str, other: str, kind: str) -> Path:
    """The folder of the annotations: ``other`` in place of ``name``, or the one of the images."""
    parts = [other if part == name else part for part in images.relative_to(root).parts]
    folder = root.joinpath(*parts)
    if not any(folder.glob(kind)):
        raise UserError(f'images are in {images}, but {folder} holds no {kind}')
    return folder
