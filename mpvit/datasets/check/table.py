"""An annotation file as arrays, and what is wrong with its form."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpvit.datasets.check.problems import Problem, problem

#: Objects are small below the first of these areas in pixels and large from the second on.
SIZE_LIMITS = (32**2, 96**2)
_LISTS = ('images', 'annotations', 'categories')
Entry = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Attributes:
        ann_file: Annotation file in COCO format.
        images: Folder to which the ``file_name`` of the images are relative.
    """

    ann_file: str | os.PathLike[str]
    images: str | os.PathLike[str]


@dataclass
class Table:
    """The well-formed entries of an annotation file, with their numbers as arrays.

    Attributes:
        role: 'train' or 'val'.
        file: Annotation file.
        content: The whole file.
        images: ``(M,)`` entries.
        annotations: ``(N,)`` entries.
        categories: ``(C,)`` entries.
        folder: Of the images.
        paths: Where the image files are, ``(M,)``.
        sizes: Stated width and height, ``(M, 2)``; NaN if they are no positive numbers.
        boxes: ``(N, 4)`` as stated, ``(x, y, width, height)``; NaN if malformed.
        malformed: Which boxes are not four numbers, ``(N,)``.
        image_row: Row of the image, ``(N,)``; -1 if it is not listed.
        category_row: Row of the category, ``(N,)``; -1 if it is not listed.
        crowd: Which annotations are crowds, ``(N,)``.
    """

    role: str
    file: str
    content: Entry
    images: list[Entry]
    annotations: list[Entry]
    categories: list[Entry]
    folder: str
    paths: list[str]
    sizes: NDArray[np.float64]
    boxes: NDArray[np.float64]
    malformed: NDArray[np.bool_]
    image_row: NDArray[np.int64]
    category_row: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    @property
    def names(self) -> list[str]:
        """Names of the categories in the file's order."""
        return [category['name'] for category in self.categories]

    @property
    def areas(self) -> NDArray[np.float64]:
        """Areas of the objects as annotated, or else of their boxes, in pixels ``(N,)``."""
        area = numbers([entry.get('area') for entry in self.annotations])
        return np.where(np.isnan(area), self.boxes[:, 2:].prod(1), area)


def read_content(split: Split) -> tuple[Entry | None, list[Problem]]:
    """Read an annotation file.

    Args:
        split: What to read.

    Returns:
        Its content, None if it is not COCO format; and the problems of the file as a whole.
    """
    file = os.fspath(split.ann_file)
    try:
        text = Path(file).read_bytes().decode('utf-8')
    except OSError as error:
        return None, [problem('file-missing', f'cannot be read: {error.strerror}', file)]
    except UnicodeDecodeError as error:
        return None, [problem('json-invalid', f'is no JSON in UTF-8: {error}', file)]
    problems = []
    if text.startswith('\ufeff'):
        problems.append(problem('json-bom', 'starts with a byte order mark', file))
        text = text[1:]
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = f'is no valid JSON: {error}' if text.strip() else 'is empty'
        return None, [*problems, problem('json-invalid', what, file)]
    fault = _form_fault(content)
    if fault:
        return None, [*problems, problem('not-coco', fault, file)]
    return content, problems


def listed_images(files: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """File names of the images in annotation files, as far as these can be read.

    Args:
        files: Annotation files.
    """
    for file in files:
        content, _ = read_content(Split(file, ''))
        for image in content['images'] if content else ():
            if isinstance(image, dict) and isinstance(image.get('file_name'), str):
                yield image['file_name']


def _form_fault(content: Any) -> str | None:
    if not isinstance(content, dict):
        kind = 'a list; is it a file of detections?' if isinstance(content, list) else 'no object'
        return f'is not in COCO format: at the top it is {kind}'
    missing = [name for name in _LISTS if not isinstance(content.get(name), list)]
    if missing:
        return f'is not in COCO format: there is no list {", ".join(missing)}'
    return None


def build_table(content: Entry, split: Split, role: str) -> Table:
    """Take the well-formed entries of a file and turn their numbers into arrays.

    Args:
        content: The file, with the three lists.
        split: Where it is from.
        role: 'train' or 'val'.
    """
    images = [entry for entry in content['images'] if image_fault(entry) is None]
    annotations = [entry for entry in content['annotations'] if annotation_fault(entry) is None]
    categories = [entry for entry in content['categories'] if category_fault(entry) is None]
    boxes, malformed = _boxes([entry.get('bbox') for entry in annotations])
    folder = os.path.realpath(split.images)
    return Table(
        role=role,
        file=os.fspath(split.ann_file),
        content=content,
        images=images,
        annotations=annotations,
        categories=categories,
        folder=folder,
        paths=[os.path.normpath(os.path.join(folder, image['file_name'])) for image in images],
        sizes=_sizes(images),
        boxes=boxes,
        malformed=malformed,
        image_row=_rows(images, [entry['image_id'] for entry in annotations]),
        category_row=_rows(categories, [entry['category_id'] for entry in annotations]),
        crowd=np.fromiter((bool(a.get('iscrowd')) for a in annotations), bool, len(annotations)),
    )


def image_fault(entry: Any) -> str | None:
    """What makes an image unusable besides its size, or None."""
    if type(entry) is not dict:
        return 'is no object'
    if type(entry.get('id')) is not int:
        return f'id is {short(entry.get("id"))}, not an integer'
    name = entry.get('file_name')
    if type(name) is not str or not name or '\0' in name:
        return f'file_name is {short(name)}'
    return None


def annotation_fault(entry: Any) -> str | None:
    """What makes an annotation unusable besides its box, or None."""
    if type(entry) is not dict:
        return 'is no object'
    for key in ('id', 'image_id', 'category_id'):
        if type(entry.get(key)) is not int:
            return f'{key} is {short(entry.get(key))}, not an integer'
    return None


def category_fault(entry: Any) -> str | None:
    """What makes a category unusable, or None."""
    if type(entry) is not dict:
        return 'is no object'
    if type(entry.get('id')) is not int:
        return f'id is {short(entry.get("id"))}, not an integer'
    if type(entry.get('name')) is not str:
        return f'name is {short(entry.get("name"))}'
    return None


def short(value: Any) -> str:
    """A value as text of limited length."""
    text = 'missing' if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + '...'


def size_text(size: Iterable[float]) -> str:
    """A width and height as text."""
    return 'x'.join(f'{side:g}' for side in size)


def number(value: Any) -> float:
    """A JSON number, NaN if it is something else."""
    if type(value) not in (int, float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def numbers(values: list[Any]) -> NDArray[np.float64]:
    """JSON numbers ``(N,)``, NaN for those that are something else or infinite."""
    try:
        array = np.array(values)
    except ValueError:  # lists among them
        array = np.array([])
    if array.shape != (len(values),) or array.dtype.kind not in 'if':
        array = np.array([number(value) for value in values], np.float64)
    return np.where(np.isfinite(array), array, np.nan).astype(np.float64)


def _sizes(images: list[Entry]) -> NDArray[np.float64]:
    columns = [numbers([image.get(key) for image in images]) for key in ('width', 'height')]
    sizes = np.column_stack(columns)
    sizes[~(sizes > 0).all(1)] = np.nan
    return sizes


def _rows(entries: list[Entry], ids: list[int]) -> NDArray[np.int64]:
    """The row of each id, of several the first; -1 for those that are not there."""
    row = {entry['id']: index for index, entry in reversed(list(enumerate(entries)))}
    return np.fromiter((row.get(id_, -1) for id_ in ids), np.int64, len(ids))


def _boxes(raw: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes ``(N, 4)``, and which of them are not four numbers."""
    try:
        boxes = np.array(raw)
        if boxes.shape == (len(raw), 4) and boxes.dtype.kind in 'if':
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


def form_problems(table: Table) -> Iterator[Problem]:
    """Malformed entries, and ids and names that stand twice."""
    file = table.file
    for kind, fault_of in (
        ('images', image_fault),
        ('annotations', annotation_fault),
        ('categories', category_fault),
    ):
        code = {'images': 'image', 'annotations': 'annotation', 'categories': 'category'}[kind]
        if not table.content[kind] and kind != 'annotations':
            yield problem(f'no-{kind}', f'the list {kind} is empty', file)
        if len(getattr(table, kind)) == len(table.content[kind]):
            continue
        for index, entry in enumerate(table.content[kind]):
            fault = fault_of(entry)
            if fault:
                yield problem(f'{code}-malformed', f'{kind}[{index}]: {fault}', file)
    for row in np.flatnonzero(np.isnan(table.sizes[:, 0])):
        image = table.images[row]
        size = f'{short(image.get("width"))}, {short(image.get("height"))}'
        yield problem('image-malformed', f'width, height: {size}', file, image['id'])
    yield from _duplicate_ids(table)


def _duplicate_ids(table: Table) -> Iterator[Problem]:
    file = table.file
    for id_, times in _repeated(image['id'] for image in table.images):
        yield problem('image-id-duplicate', f'{times} images have the id {id_}', file, id_)
    for id_, times in _repeated(entry['id'] for entry in table.annotations):
        what = f'{times} annotations have the id {id_}'
        yield problem('annotation-id-duplicate', what, file, None, id_)
    for path, times in _repeated(table.paths):
        yield problem('file-name-duplicate', f'{times} images have the file {path}', file)
    for id_, times in _repeated(category['id'] for category in table.categories):
        yield problem('category-id-duplicate', f'{times} categories have the id {id_}', file)
    for name, times in _repeated(table.names):
        yield problem('category-name-duplicate', f'{times} categories are called {name!r}', file)
    ids = sorted({category['id'] for category in table.categories})
    if ids and ids != list(range(1, len(ids) + 1)):
        what = f'{len(ids)} category ids between {ids[0]} and {ids[-1]}'
        yield problem('category-id-gaps', what, file)


def _repeated(values: Iterable[Any]) -> list[tuple[Any, int]]:
    return [(value, times) for value, times in Counter(values).items() if times > 1]
