"""An annotation file as a table: its well-formed entries, with their numbers as arrays.

What one part of the project counts, all count, since all ask `Annotations`. Imports neither torch
nor mmdet.
"""

import gc
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mpvit.datasets.coco_format import FAULTS, short
from mpvit.errors import UserError

_BLOCK = 2**19  # rows: some ten MB an array
_LONGEST = 2**24  # pixels of a side; float32 holds every integer up to here
AnyPath = str | os.PathLike[str]
Entry = dict[str, Any]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class AnnotationFileError(UserError):
    """An annotation file of which nothing can be used.

    Args:
        code: Of the check: 'file-missing', 'json-invalid' or 'not-coco'.
        reason: What is wrong, to stand after the name of the file.
    """

    def __init__(self, code: str, file: str, reason: str) -> None:
        super().__init__(f'annotation file {file} {reason}')
        self.code, self.reason = code, reason


@dataclass(eq=False)
class Annotations:
    """The well-formed entries of an annotation file, with their numbers as arrays.

    Others share it: nothing in it may be changed. What is derived from the arrays of millions of
    boxes is computed for some of the `blocks` of rows at a time.

    Attributes:
        file: Annotation file.
        content: The whole file.
        folder: Of the images, if it is known.
        starts_with_mark: Whether a byte order mark stands before the JSON.
        images: ``(M,)`` entries.
        annotations: ``(N,)`` entries.
        categories: ``(C,)`` entries.
    """

    file: str
    content: Entry
    folder: AnyPath = ''
    starts_with_mark: bool = False
    #: Whether the arrays are in files that processes share, and the entries are in none's memory.
    shared: ClassVar[bool] = False
    images: Sequence[Entry] = field(init=False)
    annotations: Sequence[Entry] = field(init=False)
    categories: Sequence[Entry] = field(init=False)

    def __post_init__(self) -> None:
        """Leave out what is malformed."""
        self.images, self.annotations, self.categories = (
            [entry for entry in self.content.get(kind, ()) if fault_of(entry) is None]
            for kind, fault_of in FAULTS.items()
        )

    def within(self, folder: AnyPath) -> 'Annotations':
        """The same, with the folder of the images."""
        found = copy(self)
        found.__dict__.pop('paths', None)
        found.folder = os.path.realpath(folder)
        return found

    def entries(self, rows: Ints) -> Sequence[Entry]:
        """The annotations of some rows."""
        return [self.annotations[row] for row in rows.tolist()]

    def whole(self) -> 'Annotations':
        """The same, with plain lists as the content, for a copy to be changed."""
        return self

    @property
    def names(self) -> list[str]:
        """Names of the categories in the file's order."""
        return [category['name'] for category in self.categories]

    @cached_property
    def paths(self) -> list[str]:
        """Where the image files are, ``(M,)``."""
        names = (image['file_name'] for image in self.images)
        return [os.path.normpath(os.path.join(self.folder, name)) for name in names]

    @cached_property
    def sizes(self) -> Floats:
        """Stated width and height of the images, ``(M, 2)``.

        NaN if not positive numbers up to 16,777,216, above any image.
        """
        columns = [[image.get(key) for image in self.images] for key in ('width', 'height')]
        sizes = np.column_stack([numbers(column) for column in columns])
        sizes[~((sizes > 0) & (sizes <= _LONGEST)).all(1)] = np.nan
        return sizes

    @cached_property
    def image_ids(self) -> Ints:
        """Ids of the images, ``(M,)``."""
        return np.array([image['id'] for image in self.images], np.int64)

    @property
    def category_ids(self) -> Ints:
        """Ids of the categories, ``(C,)``."""
        return np.array([category['id'] for category in self.categories], np.int64)

    @cached_property
    def ids(self) -> Ints:
        """Ids of the annotations, ``(N,)``."""
        return self._integers('id')

    @cached_property
    def stated_image(self) -> Ints:
        """The id of the image of each annotation, ``(N,)``, which need not be listed."""
        return self._integers('image_id')

    @cached_property
    def stated_category(self) -> Ints:
        """The id of the category of each annotation, ``(N,)``, which need not be listed."""
        return self._integers('category_id')

    def _integers(self, key: str) -> Ints:
        return np.array([entry[key] for entry in self.annotations], np.int64)

    @cached_property
    def boxes(self) -> Floats:
        """Boxes as stated, ``(x, y, width, height)`` in pixels, ``(N, 4)``; NaN if malformed."""
        return self._boxes_and_malformed[0]

    @cached_property
    def malformed(self) -> Mask:
        """Which boxes are not four numbers, ``(N,)``."""
        return self._boxes_and_malformed[1]

    @cached_property
    def _boxes_and_malformed(self) -> tuple[Floats, Mask]:
        return _boxes([entry.get('bbox') for entry in self.annotations])

    @cached_property
    def stated_areas(self) -> Floats:
        """Areas as annotated, in pixels, ``(N,)``; NaN if not finite numbers."""
        return numbers([entry.get('area') for entry in self.annotations])

    @property
    def areas(self) -> Floats:
        """Areas of the objects as annotated, or else of their boxes, in pixels, ``(N,)``."""
        with np.errstate(over='ignore'):
            of_boxes = self.boxes[:, 2:].prod(1)
        return np.where(np.isnan(self.stated_areas), of_boxes, self.stated_areas)

    @cached_property
    def image_row(self) -> Ints:
        """Row of the image of each annotation, ``(N,)``; -1 if it is not listed."""
        return rows_of(self.image_ids, self.stated_image)

    @cached_property
    def category_row(self) -> Ints:
        """Row of the category of each annotation, ``(N,)``; -1 if it is not listed."""
        return rows_of(self.category_ids, self.stated_category)

    @cached_property
    def by_image(self) -> Ints:
        """Rows of the annotations ``(N,)`` by their image, those of one that is not listed first.

        Those of an image stay in the order of the file.
        """
        return np.argsort(self.image_row, kind='stable')

    @cached_property
    def starts(self) -> Ints:
        """Where in `by_image` the annotations of each image begin, and their end, ``(M + 1,)``."""
        counts = np.zeros(len(self.images) + 1, np.int64)
        for rows in blocks(len(self.image_row)):
            counts += np.bincount(self.image_row[rows] + 1, minlength=len(counts))
        return counts.cumsum()

    def rows_in(self, image: int) -> Ints:
        """Rows of the annotations of an image, in the order of the file."""
        return self.by_image[self.starts[image] : self.starts[image + 1]]

    @cached_property
    def ids_repeat(self) -> bool:
        """Whether two annotations of listed images have the same id."""
        ids = np.sort(self.ids[self.image_row >= 0])
        return bool((ids[1:] == ids[:-1]).any())

    @cached_property
    def crowd(self) -> Mask:
        """Which annotations are crowds, ``(N,)``."""
        return np.array([bool(entry.get('iscrowd')) for entry in self.annotations], bool)

    @cached_property
    def states_crowd(self) -> Mask:
        """Which annotations have ``iscrowd``, ``(N,)``."""
        return np.array(['iscrowd' in entry for entry in self.annotations], bool)

    @cached_property
    def ignored(self) -> Mask:
        """Which annotations are marked to be left out of training (``ignore``), ``(N,)``."""
        return np.array([bool(entry.get('ignore')) for entry in self.annotations], bool)

    @cached_property
    def _sizes_and_unknown(self) -> Floats:
        return np.vstack([self.sizes, [[np.nan, np.nan]]])

    def image_sizes(self, rows: Any = slice(None)) -> Floats:
        """The stated size of the image of annotations, ``(n, 2)``; NaN if it is not known.

        Args:
            rows: Of which annotations; by default of all.
        """
        return self._sizes_and_unknown[self.image_row[rows]]

    def clipped(self, rows: Any = slice(None)) -> Floats:
        """Boxes cut to their images, ``(x1, y1, x2, y2)`` in pixels, ``(n, 4)``.

        Those without area within the image have ``x2 <= x1`` or ``y2 <= y1``.

        Args:
            rows: Of which annotations; by default of all.
        """
        boxes, ends = self.boxes[rows], np.nan_to_num(self.image_sizes(rows), nan=np.inf)
        with np.errstate(invalid='ignore', over='ignore'):  # infinite ones
            start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        return np.hstack([start.clip(0, ends), end.clip(0, ends)])

    @cached_property
    def has_area(self) -> Mask:
        """Which boxes are four finite numbers with an area within the image, ``(N,)``."""
        found = np.zeros(len(self.boxes), bool)
        for rows in blocks(len(found)):
            clipped = self.clipped(rows)
            finite, extent = np.isfinite(self.boxes[rows]), clipped[:, 2:] > clipped[:, :2]
            found[rows] = finite.all(1) & extent.all(1)
        return found

    @cached_property
    def listed(self) -> Mask:
        """Which annotations have a listed image and a listed category, ``(N,)``."""
        return np.asarray((self.image_row >= 0) & (self.category_row >= 0))

    @property
    def usable(self) -> Mask:
        """Which boxes a detector is tested with, ``(N,)``; duplicates count."""
        return np.asarray(self.has_area & ~self.crowd & self.listed)

    @property
    def trained(self) -> Mask:
        """Which boxes a detector of all categories is trained on, ``(N,)``; duplicates count."""
        return np.asarray(self.usable & ~self.ignored)

    def used(
        self,
        classes: Sequence[str] | None = None,
        filter_cfg: Mapping[str, Any] | None = None,
        training: bool = True,
    ) -> tuple[Mask, Mask]:
        """What a dataset takes of the file.

        Args:
            classes: Names of its classes; None for all categories.
            filter_cfg: mmdet's: with ``filter_empty_gt`` an image needs an annotation of a class,
                whatever its box, with ``min_size`` so many pixels on its shorter side. Only
                trainings leave images out.
            training: Boxes with ``ignore`` are left out; COCO's evaluation counts them.

        Returns:
            Which images, ``(M,)``, and which boxes, ``(N,)``; crowds are none.
        """
        counted = set(self.names if classes is None else classes)
        wanted = [name in counted for name in self.names]
        of_class = np.array([*wanted, False], bool)[self.category_row]
        images, limits = np.ones(len(self.images), bool), filter_cfg if training else None
        if limits and limits.get('filter_empty_gt'):
            images[:] = False
            for rows in blocks(len(of_class)):
                images[self.image_row[rows][of_class[rows] & self.listed[rows]]] = True
        if limits and limits.get('min_size'):
            with np.errstate(invalid='ignore'):  # unknown sizes
                images &= self.sizes.min(1) >= limits['min_size']
        boxes = (self.trained if training else self.usable) & of_class
        kept = np.append(images, False)
        for rows in blocks(len(boxes)):
            boxes[rows] &= kept[self.image_row[rows]]
        return images, boxes

    def class_counts(self, boxes: Mask | None = None) -> dict[str, int]:
        """Boxes of every category in the file's order: the usable ones, or those given ``(N,)``."""
        chosen = self.usable if boxes is None else boxes
        counts = np.zeros(len(self.categories), np.int64)
        for rows in blocks(len(chosen)):
            found = self.category_row[rows][chosen[rows]]
            counts += np.bincount(found, minlength=len(counts))
        return dict(zip(self.names, counts.tolist(), strict=True))

    def faults(self) -> Iterator[tuple[str, int, str]]:
        """The list of each entry that is left out, its place there, and why."""
        for kind, fault_of in FAULTS.items():
            entries = self.content.get(kind, ())
            if len(getattr(self, kind)) < len(entries):
                faults = ((index, fault_of(entry)) for index, entry in enumerate(entries))
                yield from ((kind, index, reason) for index, reason in faults if reason)

    def refuse_odd_boxes(self, counted: Mask) -> None:
        """Refuse a file with a box that counts and is not four finite numbers.

        Raises:
            AnnotationFileError: There is such a box among those ``counted``, ``(N,)``.
        """
        for rows in blocks(len(counted)):
            odd = counted[rows] & ~np.isfinite(self.boxes[rows]).all(1)
            for row in np.flatnonzero(odd)[:1]:
                entry = self.annotations[rows.start + row]
                raise self.malformed_error(
                    f'annotation {entry["id"]} (image {entry["image_id"]}) has the bbox '
                    f'{short(entry.get("bbox"))}, not four finite numbers'
                )

    def malformed_error(self, reason: str) -> UserError:
        """An error about the content of the file."""
        return AnnotationFileError('not-coco', self.file, f'is not in COCO format: {reason}')


@contextmanager
def collector_off() -> Iterator[None]:
    """Do not look for garbage, as otherwise happens again and again among millions of records."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def number(value: Any) -> float:
    """A JSON number, NaN if it is something else."""
    if type(value) not in (int, float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def numbers(values: list[Any]) -> Floats:
    """JSON numbers ``(N,)``, NaN for those that are something else or infinite."""
    try:
        array = np.array(values)
    except ValueError:  # lists among them
        array = np.array([])
    simple = array.shape == (len(values),) and array.dtype.kind in 'if'
    if not simple or bool in set(map(type, values)):  # NumPy counts true as 1 among numbers
        array = np.array([number(value) for value in values], np.float64)
    return np.where(np.isfinite(array), array, np.nan).astype(np.float64)


def rows_of(known: Ints, ids: Ints) -> Ints:
    """The row of each id ``(N,)`` among those that are known, of several the first; -1 for none."""
    rows = np.full(len(ids), -1, np.int64)
    if not len(known):
        return rows
    order = np.argsort(known, kind='stable')
    ascending = known[order]
    for part in blocks(len(ids)):
        place = np.searchsorted(ascending, ids[part]).clip(max=len(known) - 1)
        rows[part] = np.where(ascending[place] == ids[part], order[place], -1)
    return rows


def blocks(count: int) -> Iterator[slice]:
    """Rows in parts of which arrays take little memory; one part where there are none."""
    for start in range(0, max(count, 1), _BLOCK):
        yield slice(start, min(start + _BLOCK, count))


def _boxes(raw: list[Any]) -> tuple[Floats, Mask]:
    """Boxes ``(N, 4)``, and which of them are not four numbers."""
    try:
        boxes = np.array(raw)
        simple = boxes.shape == (len(raw), 4) and boxes.dtype.kind in 'if'
        if simple and bool not in set(map(type, chain.from_iterable(raw))):
            return boxes.astype(np.float64), np.zeros(len(raw), bool)
    except ValueError:
        pass  # not all of the same length
    boxes = np.full((len(raw), 4), np.nan)
    malformed = np.ones(len(raw), bool)
    for index, box in enumerate(raw):
        if type(box) is list and len(box) == 4 and all(type(n) in (int, float) for n in box):
            boxes[index] = [number(n) for n in box]
            malformed[index] = False
    return boxes, malformed
