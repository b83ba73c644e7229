"""Ground truth and detections of a set of images, as arrays."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpvit.datasets.annotations import read_annotations
from mpvit.datasets.table import Annotations, Floats, Ints, Mask, rows_of
from mpvit.errors import UserError, did_you_mean
from mpvit.files.untrusted import JSON_BYTES, read_untrusted

LIMIT = 100  # detections of an image and class that count, as in COCO's evaluation
_Some = TypeVar('_Some', bound='Columns')
_TYPES = dict(image_id=np.int64, category_id=np.int64, bbox=np.float64, score=np.float64)


@dataclass(frozen=True)
class Columns:
    """Arrays with the same rows."""

    def where(self: _Some, rows: Mask | Ints) -> _Some:
        """Some of the rows, or all in another order."""
        return replace(self, **{name: column[rows] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Objects(Columns):
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
    crowd: Mask


@dataclass(frozen=True)
class Detected(Columns):
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
        sizes: Their width and height in pixels as annotated, NaN if they are not, ``(I, 2)``.
        objects: Ground truth.
        detected: Detections, of each image and class the best 100.
        exif_turns: Whether boxes are in pixels of the images as their EXIF data turn them; None
            if that is not known.
    """

    names: tuple[str, ...]
    files: tuple[Path, ...]
    sizes: Floats
    objects: Objects
    detected: Detected
    exif_turns: bool | None = None


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
        exif_turns: As in `Results`.

    Returns:
        All well-formed annotations, and all detections.

    Raises:
        UserError: One of them cannot be read, or they are not about the same images and classes.
    """
    table = read_annotations(annotations, strict=False).within(images)
    if not table.images or not table.categories:
        missing = 'images' if not table.images else 'categories'
        raise UserError(f'annotation file {annotations} has no {missing}')
    names = table.names
    wanted, known = set(names if classes is None else classes), set(names)
    for name in classes or ():
        if name not in known:
            hint = did_you_mean(name, names)
            raise UserError(f'annotation file {annotations} has no class {name!r}{hint}')
    rows = [row for row, name in enumerate(names) if name in wanted]
    labels = np.full(len(table.categories) + 1, -1)  # of each category; the last of an unknown one
    labels[rows] = np.arange(len(rows))
    return Results(
        names=tuple(names[row] for row in rows),
        files=tuple(map(Path, table.paths)),
        sizes=table.sizes,
        objects=_objects(table, labels),
        detected=_detected(Path(detections), table, labels),
        exif_turns=exif_turns,
    )


def _objects(table: Annotations, labels: Ints) -> Objects:
    image, label = table.image_row, labels[table.category_row]
    good = np.flatnonzero((image >= 0) & (label >= 0) & np.isfinite(table.boxes).all(1))
    order = good[np.argsort(image[good], kind='stable')]
    return Objects(image, label, table.boxes, table.areas, table.crowd).where(order)


def _detected(path: Path, table: Annotations, labels: Ints) -> Detected:
    columns = _columns(path)
    image = rows_of(table.image_ids, columns['image_id'])
    category = rows_of(table.category_ids, columns['category_id'])
    for key, rows in (('image_id', image), ('category_id', category)):
        unknown = np.flatnonzero(rows < 0)
        if len(unknown):
            raise UserError(
                f'{path}: {len(unknown)} of {len(rows)} detections have a {key}, such as '
                f'{columns[key][unknown[0]]}, that {table.file} does not have; name the '
                'annotation file that the detector was evaluated on'
            )
    found = Detected(image, labels[category], columns['bbox'], columns['score'])
    found = found.where(found.label >= 0)
    order = np.lexsort((-found.score, found.label, found.image))
    group = (found.image * len(labels) + found.label)[order]
    place = np.arange(len(group)) - np.searchsorted(group, group)  # in its image and class
    best = found.where(np.sort(order[place < LIMIT]))
    return best.where(np.lexsort((-best.score, best.image)))


def _columns(path: Path) -> dict[str, NDArray[Any]]:
    """The entries of a file of detections as columns."""
    try:
        content = json.loads(read_untrusted(path, JSON_BYTES))
    except OSError as error:
        raise UserError(f'detections {path} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'detections {path} is no JSON: {error}') from error
    if not isinstance(content, list):
        kind = 'an annotation file' if isinstance(content, dict) else 'something else'
        raise UserError(f'detections {path} is {kind}; COCO results are a list of detections')
    try:
        columns: dict[str, NDArray[Any]] = {
            key: np.array([entry[key] for entry in content], kind) for key, kind in _TYPES.items()
        }
        columns['bbox'] = columns['bbox'].reshape(len(content), 4)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        needed = 'image_id, category_id, bbox (x, y, width, height) and score'
        raise UserError(f'detections {path}: each needs {needed}, but {error!r}') from error
    finite = np.isfinite(columns['bbox']).all(1) & np.isfinite(columns['score'])
    if not finite.all():
        raise UserError(f'detections {path}: number {finite.argmin() + 1} is not finite')
    return columns
