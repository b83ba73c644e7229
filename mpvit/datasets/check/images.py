"""What is wrong with image files, compared with what is stated about them and with each other."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mpvit.datasets.annotations import Annotations
from mpvit.datasets.check.image_files import Facts
from mpvit.datasets.check.problems import Problem, problem, size_text
from mpvit.files.paths import is_image

_MODES = {
    '1': 'image-grayscale',
    'L': 'image-grayscale',
    'LA': 'image-alpha',
    'PA': 'image-alpha',
    'RGBA': 'image-alpha',
    'La': 'image-alpha',
    'RGBa': 'image-alpha',
    'P': 'image-palette',
    'CMYK': 'image-cmyk',
}


def image_problems(table: Annotations, facts: Mapping[str, Facts]) -> Iterator[Problem]:
    """Compare image files with what an annotation file states."""
    looked_at = [facts[path] for path in dict.fromkeys(table.paths) if path in facts]
    if looked_at and all(fact.fault for fact in looked_at):
        yield _none_found(table, looked_at)
        return
    boxes = boxes_by_image(table)
    for row, path in enumerate(table.paths):
        if path in facts:
            for code, message in _faults(table, row, facts[path], boxes):
                yield problem(code, message, path, table.images[row]['id'])


def _none_found(table: Annotations, looked_at: Sequence[Facts]) -> Problem:
    name = table.images[0]['file_name']
    what = f'none of {len(looked_at)} images can be read; the first: {looked_at[0].fault}'
    base = Path(looked_at[0].path)
    folder = base.as_posix().removesuffix(f'/{name}')
    if '\\' in name:
        what += '; write the file names with / instead of \\'
    elif '/' in name and os.path.isfile(os.path.join(folder, base.name)):
        what += f'; it is in {folder}, so file_name must not name a folder'
    elif '/' in name and os.path.isfile(os.path.join(os.path.dirname(folder), name)):
        what += f'; it is there from {os.path.dirname(folder)} on'
    return problem('no-image-found', what, looked_at[0].path)


def boxes_by_image(table: Annotations) -> Callable[[int], np.ndarray]:
    """A function from the row of an image to the boxes in it, ``(n, 4)``, as stated."""
    order = np.argsort(table.image_row, kind='stable')
    rows = table.image_row[order]

    def boxes(row: int) -> np.ndarray:
        first, last = np.searchsorted(rows, [row, row + 1])
        return table.boxes[order[first:last]]

    return boxes


def _faults(
    table: Annotations, row: int, fact: Facts, boxes: Callable[[int], np.ndarray]
) -> Iterator[tuple[str, str]]:
    """Code and message of everything wrong with one image file."""
    if fact.fault == 'missing':
        yield 'image-missing', 'there is no such file'
        return
    if fact.fault:
        yield 'image-unreadable', f'cannot be decoded: {fact.fault}'
        return
    if fact.mode in _MODES:
        yield _MODES[fact.mode], f'mode {fact.mode}'
    elif fact.mode.startswith(('I', 'F')):
        yield 'image-deep', f'mode {fact.mode}'
    stated = tuple(table.sizes[row])
    if stated != fact.size or fact.orientation > 1:
        yield from _size_fault(stated, fact, boxes(row))


def _size_fault(
    stated: tuple[float, ...], fact: Facts, boxes: np.ndarray
) -> Iterator[tuple[str, str]]:
    if np.isnan(stated[0]):
        return  # reported as malformed
    turned = fact.turned().size
    sizes = f'stated {size_text(stated)}, real {size_text(fact.size)}'
    if stated not in (fact.size, turned):
        fit = boxes_fit(boxes, stated, fact.size)
        yield ('size-mismatch' if fit else 'size-and-boxes-mismatch'), sizes
    elif turned == fact.size:
        yield 'exif-ambiguous', f'EXIF orientation {fact.orientation}'
    else:
        code = 'exif-turned' if stated == turned else 'exif-stored'
        yield code, f'EXIF orientation {fact.orientation}, {sizes}'


def boxes_fit(
    boxes: np.ndarray, stated: Sequence[float], size: Sequence[float], tolerance: float = 1.0
) -> bool:
    """Whether what the stated size leaves of boxes lies within another size.

    Args:
        boxes: ``(n, 4)``.
        stated: Width and height.
        size: Width and height.
        tolerance: Pixels by which they may be larger.
    """
    corners = boxes[:, :2] + boxes[:, 2:]
    with np.errstate(invalid='ignore'):
        kept = ((boxes[:, :2] < stated) & (corners > 0) & (boxes[:, 2:] > 0)).all(1)
    ends = np.minimum(corners[kept], stated)
    return bool((ends <= np.add(size, tolerance)).all())


def copy_problems(tables: Sequence[Annotations], facts: Mapping[str, Facts]) -> Iterator[Problem]:
    """Images that stand in training and validation, or twice in one of them."""
    by_content: list[dict[bytes, list[str]]] = []
    for table in tables:
        groups: dict[bytes, list[str]] = defaultdict(list)
        for path in dict.fromkeys(table.paths):
            digest = facts[path].digest if path in facts else b''
            if digest:
                groups[digest].append(path)
        for paths in groups.values():
            if len(paths) > 1:
                what = f'the same content as {_named(paths[1:])}'
                yield problem('image-duplicate', what, paths[0])
        by_content.append(groups)
    if len(tables) == 2:
        yield from _shared(tables[0], tables[1], by_content[0], facts)


def _shared(
    train: Annotations,
    val: Annotations,
    contents: Mapping[bytes, list[str]],
    facts: Mapping[str, Facts],
) -> Iterator[Problem]:
    paths = set(train.paths)
    for image, path in zip(val.images, val.paths, strict=True):
        digest = facts[path].digest if path in facts else b''
        if path in paths:
            yield problem('val-in-train', 'stands in both', path, image['id'])
        elif digest in contents:
            what = f'the same content as {_named(contents[digest])}'
            yield problem('val-in-train', what, path, image['id'])


def _named(paths: Sequence[str]) -> str:
    return ', '.join(paths[:3]) + (f' and {len(paths) - 3} more' if len(paths) > 3 else '')


def orphan_problems(
    tables: Sequence[Annotations], folders: Sequence[str], other_names: Iterable[str] = ()
) -> Iterator[Problem]:
    """Images in the folders that no annotation file lists.

    Args:
        tables: The annotation files.
        folders: Their image folders.
        other_names: File names in further annotation files, relative to any of the folders.
    """
    listed = {os.path.normpath(path) for table in tables for path in table.paths}
    roots = [os.path.realpath(folder) for folder in folders]
    listed |= {os.path.normpath(os.path.join(root, n)) for n in other_names for root in roots}
    seen = set()
    for root in roots:
        for parent, children, files in os.walk(root):
            children[:] = sorted(name for name in children if not name.startswith('.'))
            for name in sorted(files):
                path = os.path.join(parent, name)
                known = path in listed or path in seen or name.startswith('.')
                if not known and is_image(name):
                    seen.add(path)
                    yield problem('image-orphan', 'no annotation file lists it', path)
