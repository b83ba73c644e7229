"""What is wrong with boxes, for all of a file at once."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mpvit.datasets.check.problems import Problem, problem
from mpvit.datasets.check.table import Table, numbers, short, size_text

#: Pixels by which a box may reach out of its image before it is worth a word, since tools round.
TOLERANCE = 1.0
_SHARE = 0.1  # of the boxes that must reach out before their format is doubted
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class BoxFaults:
    """Which boxes have which fault, ``(N,)`` each; a box has at most one of the first five."""

    malformed: Mask
    not_finite: Mask
    no_area: Mask
    outside: Mask
    partly_outside: Mask
    duplicate: Mask


def box_faults(table: Table) -> BoxFaults:
    """Look at all boxes of a file.

    Args:
        table: The file.
    """
    x1, y1, width, height = table.boxes.T
    x2, y2 = x1 + width, y1 + height
    image_width, image_height = image_sizes(table).T  # NaN where unknown: all comparisons fail
    finite = np.asarray(np.isfinite(table.boxes).all(1), bool)
    with np.errstate(invalid='ignore'):
        no_area = finite & ((width <= 0) | (height <= 0))
        sound = finite & ~no_area
        beside = (x1 >= image_width) | (y1 >= image_height) | (x2 <= 0) | (y2 <= 0)
        beyond = (np.minimum(x1, y1) < -TOLERANCE) | (x2 > image_width + TOLERANCE)
        beyond |= y2 > image_height + TOLERANCE
    return BoxFaults(
        malformed=table.malformed,
        not_finite=~finite & ~table.malformed,
        no_area=no_area,
        outside=sound & beside,
        partly_outside=sound & ~beside & beyond & ~np.isnan(image_width),
        duplicate=_duplicates(table, finite),
    )


def image_sizes(table: Table) -> NDArray[np.float64]:
    """The stated size of the image of every box, ``(N, 2)``; NaN where it is not known."""
    if not len(table.sizes):
        return np.full((len(table.boxes), 2), np.nan)
    sizes = table.sizes[table.image_row]
    sizes[table.image_row < 0] = np.nan
    return sizes


def _duplicates(table: Table, finite: Mask) -> Mask:
    """Boxes that are there already, in the same image and with the same class."""
    keys = np.column_stack([table.image_row, table.category_row, table.crowd, table.boxes])
    duplicate = np.zeros(len(keys), bool)
    # exact, but slow for all of COCO: only rows whose mixture of all numbers occurs twice
    rows = _occur_twice((keys * np.sqrt([2, 3, 5, 7, 11, 13, 17])).sum(1))
    order = rows[np.lexsort(keys[rows].T)]  # stable: of equal ones the first in the file is first
    duplicate[order[1:]] = (keys[order[1:]] == keys[order[:-1]]).all(1)
    known = (table.image_row >= 0) & (table.category_row >= 0)
    return duplicate & finite & known


def _occur_twice(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Ascending indices of the values that occur more than once."""
    order = np.argsort(values)
    equal = values[order[1:]] == values[order[:-1]]
    return np.unique(np.concatenate([order[1:][equal], order[:-1][equal]]))


def usable(table: Table, faults: BoxFaults) -> Mask:
    """Which boxes a detector is trained on or tested with, ``(N,)``; duplicates count."""
    bad = faults.malformed | faults.not_finite | faults.no_area | faults.outside
    return ~bad & ~table.crowd & (table.image_row >= 0) & (table.category_row >= 0)


def box_problems(table: Table, faults: BoxFaults) -> Iterator[Problem]:
    """Everything wrong with boxes and annotations.

    Args:
        table: The file.
        faults: Of its boxes.
    """
    file = table.file
    if not usable(table, faults).any():
        code = 'no-usable-box' if table.role == 'train' else 'val-without-boxes'
        what = f'none of the {len(table.boxes):,} annotations is a valid box of a listed category'
        yield problem(code, what, file)
    yield from _systematic(table, faults)
    for field in fields(BoxFaults):
        code = 'box-' + field.name.replace('_', '-')
        for row in np.flatnonzero(getattr(faults, field.name)).tolist():
            yield _of_row(table, code, row, _describe(table, row))
    for key, column in (('image', table.image_row), ('category', table.category_row)):
        for row in np.flatnonzero(column < 0).tolist():
            id_ = table.annotations[row][f'{key}_id']
            yield _of_row(table, f'{key}-unknown', row, f'there is no {key} {id_}')
    yield from _missing_keys(table)
    if table.crowd.any():
        yield problem('crowd', f'{table.crowd.sum():,} annotations are crowds', file)
    empty = len(table.images) - len(np.unique(table.image_row[table.image_row >= 0]))
    if empty:
        what = f'{empty:,} of {len(table.images):,} images have no annotation'
        yield problem('image-without-boxes', what, file)


def _of_row(table: Table, code: str, row: int, message: str) -> Problem:
    entry = table.annotations[row]
    return problem(code, message, table.file, entry['image_id'], entry['id'])


def _describe(table: Table, row: int) -> str:
    """The box, and the size of its image."""
    text = f'bbox {short(table.annotations[row].get("bbox"))}'
    image = table.image_row[row]
    if image < 0 or np.isnan(table.sizes[image, 0]):
        return text
    return f'{text} in an image of {size_text(table.sizes[image])}'


def _missing_keys(table: Table) -> Iterator[Problem]:
    areas = numbers([entry.get('area') for entry in table.annotations])
    for row in np.flatnonzero(np.isnan(areas)).tolist():
        what = f'area: {short(table.annotations[row].get("area"))}'
        yield _of_row(table, 'area-missing', row, what)
    for row, entry in enumerate(table.annotations):
        if 'iscrowd' not in entry:
            yield _of_row(table, 'iscrowd-missing', row, 'iscrowd: missing')


def _systematic(table: Table, faults: BoxFaults) -> Iterator[Problem]:
    """Boxes that are all in another format."""
    sizes = image_sizes(table)
    known = ~(faults.malformed | faults.not_finite) & ~np.isnan(sizes[:, 0])
    boxes, sizes = table.boxes[known], sizes[known]
    if not len(boxes):
        return
    if boxes.max() <= 1 and sizes.max() > 1:
        what = f'all {len(boxes)} boxes lie between 0 and 1, such as {boxes[0].tolist()}'
        yield problem('boxes-normalized', what, table.file)
    outside = int((faults.outside | faults.partly_outside).sum())
    ordered = (boxes[:, 2:] > boxes[:, :2]).all()
    inside = (boxes[:, 2:] <= sizes + TOLERANCE).all() and boxes.min() >= -TOLERANCE
    if outside >= max(3, _SHARE * len(boxes)) and ordered and inside:
        what = f'{outside} of {len(boxes)} boxes reach out of their image, none does as corners'
        yield problem('boxes-are-corners', what, table.file)
