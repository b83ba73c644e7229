"""Ground truth and detections of a set of images, as arrays."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpvit.datasets.annotations import Annotations, read_annotations
from mpvit.errors import UserError, did_you_mean

LIMIT = 100  # detections of an image and class that count, as in COCO's evaluation
_KEYS = ('image_id', 'category_id', 'bbox', 'score')
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Objects:
    """Ground truth, ordered by image.

    Attributes:
        image: Index into the images, ``(M,)``.
        label: Index into the classes, ``(M,)``.
        boxes: ``(x, y, width, height)`` in pixels, ``(M, 4)``.
        area: As annotated, in pixels, ``(M,)``.
        crowd: Which are regions with many objects, ``(M,)``.
    """

    image: Ints
    label: Ints
    boxes: Floats
    area: Floats
    crowd: NDArray[np.bool_]


@dataclass(frozen=True)
class Detected:
    """Detections, ordered by image, those of an image by falling score.

    Attributes:
        image: Index into the images, ``(N,)``.
        label: Index into the classes, ``(N,)``.
        boxes: ``(x, y, width, height)`` in pixels, ``(N, 4)``.
        score: In [0, 1], ``(N,)``.
    """

    image: Ints
    label: Ints
    boxes: Floats
    score: Floats


@dataclass(frozen=True)
class Results:
    """What there is and what was found.

    Attributes:
        names: Class names by label.
        files: Image files by index; not all need exist.
        image_ids: Their ids in the annotation file, ``(I,)``.
        sizes: Their width and height in pixels as annotated, NaN if they are not, ``(I, 2)``.
        objects: Ground truth.
        detected: Detections, of each image and class the best 100.
        exif_turns: Whether boxes are in pixels of the images as their EXIF data turn them; None
            if that is not known.
    """

    names: tuple[str, ...]
    files: tuple[Path, ...]
    image_ids: Ints
    sizes: Floats
    objects: Objects
    detected: Detected
    exif_turns: bool | None = None

    def above(self, threshold: float) -> 'Results':
        """The same with the detections of this score or more.

        Args:
            threshold: Lowest score.
        """
        keep = self.detected.score >= threshold
        columns = {name: column[keep] for name, column in vars(self.detected).items()}
        return replace(self, detected=Detected(**columns))


def read_results(
    annotations: str | os.PathLike[str],
    detections: str | os.PathLike[str],
    images: str | os.PathLike[str] = '',
    classes: Sequence[str] | None = None,
    exif_turns: bool | None = None,
) -> Results:
    """Read an annotation file and a file of detections.

    Args:
        annotations: File in COCO format.
        detections: File in COCO's result format.
        images: Folder of the images.
        classes: Categories that count; None for all.
        exif_turns: Whether boxes are in pixels of the images as their EXIF data turn them; None
            if that is not known.

    Returns:
        All well-formed annotations, and all detections.

    Raises:
        UserError: One of them cannot be read, or they are not about the same images and classes.
    """
    table = read_annotations(annotations, strict=False).within(images)
    if not table.images or not table.categories:
        missing = 'images' if not table.images else 'categories'
        raise UserError(f'annotation file {annotations} has no {missing}')
    rows = _class_rows(table, classes)
    return Results(
        names=tuple(table.names[row] for row in rows),
        files=tuple(map(Path, table.paths)),
        image_ids=np.array([image['id'] for image in table.images]),
        sizes=table.sizes,
        objects=_objects(table, rows),
        detected=_detected(Path(detections), table, rows, os.fspath(annotations)),
        exif_turns=exif_turns,
    )


def _class_rows(table: Annotations, classes: Sequence[str] | None) -> list[int]:
    for name in classes or ():
        if name not in table.names:
            hint = did_you_mean(name, table.names)
            raise UserError(f'annotation file {table.file} has no class {name!r}{hint}')
    return [row for row, name in enumerate(table.names) if classes is None or name in classes]


def _labels(table: Annotations, rows: Sequence[int]) -> Ints:
    """The label of each category; -1 for those that do not count, and behind the last."""
    labels = np.full(len(table.categories) + 1, -1)
    labels[rows] = np.arange(len(rows))
    return labels


def _objects(table: Annotations, rows: Sequence[int]) -> Objects:
    label = _labels(table, rows)[table.category_row]
    good = (table.image_row >= 0) & (label >= 0) & np.isfinite(table.boxes).all(1)
    area = table.areas
    order = np.flatnonzero(good)[np.argsort(table.image_row[good], kind='stable')]
    return Objects(
        table.image_row[order], label[order], table.boxes[order], area[order], table.crowd[order]
    )


def _detected(path: Path, table: Annotations, rows: Sequence[int], annotations: str) -> Detected:
    columns = _columns(path)
    image = _looked_up(columns['image_id'], [entry['id'] for entry in table.images])
    category = _looked_up(columns['category_id'], [entry['id'] for entry in table.categories])
    for kind, found, values in (
        ('image', image, columns['image_id']),
        ('category', category, columns['category_id']),
    ):
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            raise UserError(
                f'{path}: {len(unknown)} of {len(found)} detections have a {kind}_id, such as '
                f'{values[unknown[0]]}, that {annotations} does not have; name the annotation '
                'file that the detector was evaluated on'
            )
    label = _labels(table, rows)[category]
    order = np.lexsort((-columns['score'], image))
    order = order[label[order] >= 0]
    order = order[_rank(image[order], label[order]) < LIMIT]
    return Detected(image[order], label[order], columns['bbox'][order], columns['score'][order])


def _columns(path: Path) -> dict[str, NDArray[Any]]:
    """The entries of a file of detections as columns."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f'detections {path} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'detections {path} is no JSON: {error}') from error
    if not isinstance(content, list):
        kind = 'an annotation file' if isinstance(content, dict) else 'something else'
        raise UserError(f'detections {path} is {kind}; COCO results are a list of detections')
    try:
        image, category, boxes, scores = ([entry[key] for entry in content] for key in _KEYS)
        columns: dict[str, NDArray[Any]] = dict(
            image_id=np.array(image, np.int64),
            category_id=np.array(category, np.int64),
            bbox=np.array(boxes, np.float64).reshape(len(content), 4),
            score=np.array(scores, np.float64),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        needed = 'image_id, category_id, bbox (x, y, width, height) and score'
        raise UserError(f'detections {path}: each needs {needed}, but {error!r}') from error
    finite = np.isfinite(columns['bbox']).all(1) & np.isfinite(columns['score'])
    if not finite.all():
        raise UserError(f'detections {path}: number {finite.argmin() + 1} is not finite')
    return columns


def _looked_up(values: Ints, ids: Sequence[int]) -> Ints:
    """Where each value stands in a list, the first place of several; -1 where it does not."""
    known, first = np.unique(np.array(ids), return_index=True)
    place = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[place] == values, first[place], -1)


def _rank(image: Ints, label: Ints) -> Ints:
    """How many of the same image and class stand before each."""
    order = np.lexsort((label, image))
    change = np.diff(image[order], prepend=-1) | np.diff(label[order], prepend=-1)
    starts = np.flatnonzero(change)
    rank = np.empty(len(image), np.int64)
    lengths = np.diff(starts, append=len(image))
    rank[order] = np.arange(len(image)) - np.repeat(starts, lengths)
    return rank
