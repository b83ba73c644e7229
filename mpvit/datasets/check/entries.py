"""What is wrong with the entries of an annotation file, for all of a file at once."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mpvit.datasets.check.problems import Problem, size_text
from mpvit.datasets.coco_format import short
from mpvit.datasets.table import Annotations, Mask, numbers

#: Pixels by which a box may reach out of its image before it is worth a word, since tools round.
TOLERANCE = 1.0
_SHARE = 0.1  # of the boxes that must reach out before their format is doubted


def form_problems(table: Annotations) -> Iterator[Problem]:
    """Malformed entries, and ids and names that stand twice."""
    file = table.file
    for kind in ('images', 'categories'):
        if not table.content[kind]:
            yield Problem(f'no-{kind}', f'the list {kind} is empty', file)
    for kind, index, reason in table.faults():
        code = dict(images='image', annotations='annotation', categories='category')[kind]
        yield Problem(f'{code}-malformed', f'{kind}[{index}]: {reason}', file)
    for row in np.flatnonzero(np.isnan(table.sizes[:, 0])):
        image = table.images[row]
        size = f'{short(image.get("width"))}, {short(image.get("height"))}'
        yield Problem('image-malformed', f'width, height: {size}', file, image['id'])
    yield from _duplicate_ids(table)


def _duplicate_ids(table: Annotations) -> Iterator[Problem]:
    file = table.file
    for id_, times in _repeated(image['id'] for image in table.images):
        yield Problem('image-id-duplicate', f'{times} images have the id {id_}', file, id_)
    for id_, times in _repeated(entry['id'] for entry in table.annotations):
        what = f'{times} annotations have the id {id_}'
        yield Problem('annotation-id-duplicate', what, file, None, id_)
    for path, times in _repeated(table.paths):
        yield Problem('file-name-duplicate', f'{times} images have the file {path}', file)
    for id_, times in _repeated(category['id'] for category in table.categories):
        yield Problem('category-id-duplicate', f'{times} categories have the id {id_}', file)
    for name, times in _repeated(table.names):
        yield Problem('category-name-duplicate', f'{times} categories are called {name!r}', file)
    ids = sorted({category['id'] for category in table.categories})
    if ids and ids != list(range(1, len(ids) + 1)):
        what = f'{len(ids)} category ids between {ids[0]} and {ids[-1]}'
        yield Problem('category-id-gaps', what, file)


def _repeated(values: Iterable[Any]) -> list[tuple[Any, int]]:
    return [(value, times) for value, times in Counter(values).items() if times > 1]


def box_faults(table: Annotations) -> dict[str, Mask]:
    """Which boxes have which fault, ``(N,)`` each; a box has at most one of the first five."""
    finite = np.asarray(np.isfinite(table.boxes).all(1), bool)
    with np.errstate(invalid='ignore', over='ignore'):
        ends = table.boxes[:, :2] + table.boxes[:, 2:]
        no_area = finite & (table.boxes[:, 2:] <= 0).any(1)
        # of unknown sizes, which are NaN, all comparisons fail
        beyond = (table.boxes[:, :2] < -TOLERANCE) | (ends > table.image_sizes + TOLERANCE)
    known = ~np.isnan(table.image_sizes[:, 0])
    return dict(
        malformed=table.malformed,
        not_finite=~finite & ~table.malformed,
        no_area=no_area,
        outside=finite & ~no_area & ~table.has_area,
        partly_outside=table.has_area & beyond.any(1) & known,
        duplicate=_duplicates(table, finite),
    )


def _duplicates(table: Annotations, finite: Mask) -> Mask:
    """Boxes that are there already, in the same image and with the same class."""
    keys = np.column_stack([table.image_row, table.category_row, table.crowd, table.boxes])
    duplicate = np.zeros(len(keys), bool)
    # exact, but slow for all of COCO: only rows whose mixture of all numbers occurs twice
    with np.errstate(over='ignore', invalid='ignore'):
        mixtures = (keys * np.sqrt([2, 3, 5, 7, 11, 13, 17])).sum(1)
    _, which, times = np.unique(mixtures, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(times[which] > 1)
    order = rows[np.lexsort(keys[rows].T)]  # stable: of equal ones the first in the file is first
    duplicate[order[1:]] = (keys[order[1:]] == keys[order[:-1]]).all(1)
    return duplicate & finite & table.listed


def box_problems(table: Annotations, role: str, used: Mask) -> Iterator[Problem]:
    """Everything wrong with boxes and annotations of a split.

    Args:
        table: The annotation file.
        role: 'train' or 'val'.
        used: Which boxes the split takes of the file, ``(N,)``.
    """
    file, faults = table.file, box_faults(table)
    if not used.any():
        code = 'no-usable-box' if role == 'train' else 'val-without-boxes'
        what = f'none of the {len(table.boxes):,} annotations is a valid box of a listed category'
        yield Problem(code, what, file)
    yield from _systematic(table, faults)
    for name, rows in faults.items():
        code = 'box-' + name.replace('_', '-')
        for row in np.flatnonzero(rows).tolist():
            yield _of_row(table, code, row, _describe(table, row))
    for key, column in (('image', table.image_row), ('category', table.category_row)):
        for row in np.flatnonzero(column < 0).tolist():
            id_ = table.annotations[row][f'{key}_id']
            yield _of_row(table, f'{key}-unknown', row, f'there is no {key} {id_}')
    yield from _missing_keys(table)
    if table.crowd.any():
        yield Problem('crowd', f'{table.crowd.sum():,} annotations are crowds', file)
    if table.ignored.any() and role == 'train':
        yield Problem('ignored', f'{table.ignored.sum():,} annotations have ignore: 1', file)
    empty = len(table.images) - len(np.unique(table.image_row[table.image_row >= 0]))
    if empty:
        what = f'{empty:,} of {len(table.images):,} images have no annotation'
        yield Problem('image-without-boxes', what, file)


def _of_row(table: Annotations, code: str, row: int, message: str) -> Problem:
    entry = table.annotations[row]
    return Problem(code, message, table.file, entry['image_id'], entry['id'])


def _describe(table: Annotations, row: int) -> str:
    """The box, and the size of its image."""
    text = f'bbox {short(table.annotations[row].get("bbox"))}'
    image = table.image_row[row]
    if image < 0 or np.isnan(table.sizes[image, 0]):
        return text
    return f'{text} in an image of {size_text(table.sizes[image])}'


def _missing_keys(table: Annotations) -> Iterator[Problem]:
    areas = numbers([entry.get('area') for entry in table.annotations])
    for row in np.flatnonzero(np.isnan(areas)).tolist():
        what = f'area: {short(table.annotations[row].get("area"))}'
        yield _of_row(table, 'area-missing', row, what)
    for row, entry in enumerate(table.annotations):
        if 'iscrowd' not in entry:
            yield _of_row(table, 'iscrowd-missing', row, 'iscrowd: missing')


def _systematic(table: Annotations, faults: dict[str, Mask]) -> Iterator[Problem]:
    """Boxes that are all in another format."""
    sizes = table.image_sizes
    known = ~(faults['malformed'] | faults['not_finite']) & ~np.isnan(sizes[:, 0])
    boxes, sizes = table.boxes[known], sizes[known]
    if not len(boxes):
        return
    if boxes.max() <= 1 and sizes.max() > 1:
        what = f'all {len(boxes)} boxes lie between 0 and 1, such as {boxes[0].tolist()}'
        yield Problem('boxes-normalized', what, table.file)
    outside = int((faults['outside'] | faults['partly_outside']).sum())
    ordered = (boxes[:, 2:] > boxes[:, :2]).all()
    inside = (boxes[:, 2:] <= sizes + TOLERANCE).all() and boxes.min() >= -TOLERANCE
    if outside >= max(3, _SHARE * len(boxes)) and ordered and inside:
        what = f'{outside} of {len(boxes)} boxes reach out of their image, none does as corners'
        yield Problem('boxes-are-corners', what, table.file)
