"""What is wrong with the entries of an annotation file, for all of a file at once."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mpvit.datasets.check.problems import Problem, size_text
from mpvit.datasets.coco_format import short
from mpvit.datasets.table import Annotations, Floats, Ints, Mask, blocks

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
    for row in np.flatnonzero(np.isnan(table.sizes[:, 0])).tolist():
        image = table.images[row]
        size = f'{short(image.get("width"))}, {short(image.get("height"))}'
        yield Problem('image-malformed', f'width, height: {size}', file, image['id'])
    yield from _duplicate_ids(table)


def _duplicate_ids(table: Annotations) -> Iterator[Problem]:
    file = table.file
    for id_, times in _repeated_ids(table.image_ids):
        yield Problem('image-id-duplicate', f'{times} images have the id {id_}', file, id_)
    for id_, times in _repeated_ids(table.ids):
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


def _repeated_ids(ids: Ints) -> list[tuple[int, int]]:
    """Ids that stand several times, in the order of the file, and how often."""
    ascending = np.sort(ids)
    if not (ascending[1:] == ascending[:-1]).any():  # a table of millions takes much memory
        return []
    return _repeated(ids.tolist())


def box_faults(table: Annotations) -> dict[str, Mask]:
    """Which boxes have which fault, ``(N,)`` each; a box has at most one of the first five."""
    parts = [_faults_of(table, rows) for rows in blocks(len(table.boxes))]
    faults = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    finite = ~(faults['malformed'] | faults['not_finite'])
    return dict(faults, duplicate=_duplicates(table) & finite & table.listed)


def _faults_of(table: Annotations, rows: slice) -> dict[str, Mask]:
    boxes, malformed, has_area = table.boxes[rows], table.malformed[rows], table.has_area[rows]
    sizes = table.image_sizes(rows)
    finite = np.asarray(np.isfinite(boxes).all(1), bool)
    with np.errstate(invalid='ignore', over='ignore'):
        ends = boxes[:, :2] + boxes[:, 2:]
        no_area = finite & (boxes[:, 2:] <= 0).any(1)
        # of unknown sizes, which are NaN, all comparisons fail
        beyond = (boxes[:, :2] < -TOLERANCE) | (ends > sizes + TOLERANCE)
    return dict(
        malformed=malformed,
        not_finite=~finite & ~malformed,
        no_area=no_area,
        outside=finite & ~no_area & ~has_area,
        partly_outside=has_area & beyond.any(1) & ~np.isnan(sizes[:, 0]),
    )


def _duplicates(table: Annotations) -> Mask:
    """Boxes that are there already, in the same image and with the same class."""

    def keys(rows: Any) -> Floats:
        columns = (table.image_row, table.category_row, table.crowd, table.boxes)
        return np.column_stack([column[rows] for column in columns])

    # exact, but slow for all of COCO: only rows whose mixture of all numbers occurs twice
    mixtures, factors = np.empty(len(table.boxes)), np.sqrt([2, 3, 5, 7, 11, 13, 17])
    with np.errstate(over='ignore', invalid='ignore'):
        for part in blocks(len(mixtures)):
            mixtures[part] = (keys(part) * factors).sum(1)
    ascending = np.sort(mixtures)
    twice = np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
    again = [np.isin(mixtures[part], twice) for part in blocks(len(mixtures))]
    rows = np.flatnonzero(np.concatenate(again))
    found = keys(rows)
    order = np.lexsort(found.T)  # stable: of equal ones the first in the file is first
    duplicate = np.zeros(len(mixtures), bool)
    duplicate[rows[order[1:]]] = (found[order[1:]] == found[order[:-1]]).all(1)
    return duplicate


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
    empty = int((np.diff(table.starts) == 0).sum())
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
    for row in np.flatnonzero(np.isnan(table.stated_areas)).tolist():
        what = f'area: {short(table.annotations[row].get("area"))}'
        yield _of_row(table, 'area-missing', row, what)
    for row in np.flatnonzero(~table.states_crowd).tolist():
        yield _of_row(table, 'iscrowd-missing', row, 'iscrowd: missing')


def _systematic(table: Annotations, faults: dict[str, Mask]) -> Iterator[Problem]:
    """Boxes that are all in another format."""
    finite = ~(faults['malformed'] | faults['not_finite'])
    first: Floats | None = None
    count, in_unit, larger, corners = 0, True, False, True
    for rows in blocks(len(finite)):
        sizes = table.image_sizes(rows)
        known = finite[rows] & ~np.isnan(sizes[:, 0])
        boxes, sizes = table.boxes[rows][known], sizes[known]
        if not len(boxes):
            continue
        first, count = boxes[0] if first is None else first, count + len(boxes)
        in_unit &= bool(boxes.max() <= 1)
        larger |= bool(sizes.max() > 1)
        corners &= bool((boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= -TOLERANCE)
        corners &= bool((boxes[:, 2:] <= sizes + TOLERANCE).all())
    if first is None:
        return
    if in_unit and larger:
        what = f'all {count} boxes lie between 0 and 1, such as {first.tolist()}'
        yield Problem('boxes-normalized', what, table.file)
    outside = int((faults['outside'] | faults['partly_outside']).sum())
    if outside >= max(3, _SHARE * count) and corners:
        what = f'{outside} of {count} boxes reach out of their image, none does as corners'
        yield Problem('boxes-are-corners', what, table.file)
