"""What is wrong with image files, compared with what is stated about them and with each other."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mpvit.datasets.check.entries import TOLERANCE
from mpvit.datasets.check.expectations import Scales
from mpvit.datasets.check.image_files import Facts
from mpvit.datasets.check.problems import Problem, size_text
from mpvit.datasets.table import Annotations, Floats
from mpvit.files.paths import is_image
from mpvit.files.untrusted import walk

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
    for row, path in enumerate(table.paths):
        if path in facts:
            boxes = table.boxes[table.rows_in(row)]
            for code, message in _faults(tuple(table.sizes[row].tolist()), facts[path], boxes):
                yield Problem(code, message, path, int(table.image_ids[row]))


def narrow_problems(
    table: Annotations, facts: Mapping[str, Facts], scales: Scales
) -> Iterator[Problem]:
    """Images that cannot be resized, by the size of the file where it was looked at."""
    columns = (table.image_ids.tolist(), table.paths, table.sizes.tolist())
    for image, path, stated in zip(*columns, strict=True):
        fact = facts.get(path)
        size = stated if fact is None or fact.fault else fact.size
        if max(size) > scales.widest * min(size):  # not of unknown ones, which are NaN
            what = f'{size_text(size)}: one side is over {scales.widest:.0f} times the other'
            yield Problem('image-narrow', what, path, image)


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
    return Problem('no-image-found', what, looked_at[0].path)


def _faults(stated: tuple[float, ...], fact: Facts, boxes: Floats) -> Iterator[tuple[str, str]]:
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
    upright = stated == fact.size and fact.orientation == 1
    if not upright and not np.isnan(stated[0]):  # such as are reported as malformed
        yield _size_fault(stated, fact, boxes)


def _size_fault(stated: tuple[float, ...], fact: Facts, boxes: Floats) -> tuple[str, str]:
    turned = fact.turned().size
    sizes = f'stated {size_text(stated)}, real {size_text(fact.size)}'
    if stated not in (fact.size, turned):
        fit = boxes_fit(boxes, stated, fact.size)
        return ('size-mismatch' if fit else 'size-and-boxes-mismatch'), sizes
    if turned == fact.size:
        return 'exif-ambiguous', f'EXIF orientation {fact.orientation}'
    code = 'exif-turned' if stated == turned else 'exif-stored'
    return code, f'EXIF orientation {fact.orientation}, {sizes}'


def boxes_fit(boxes: Floats, stated: Sequence[float], size: Sequence[float]) -> bool:
    """Whether what a stated width and height leave of boxes ``(n, 4)`` lies within others."""
    with np.errstate(invalid='ignore', over='ignore'):
        corners = boxes[:, :2] + boxes[:, 2:]
        kept = ((boxes[:, :2] < stated) & (corners > 0) & (boxes[:, 2:] > 0)).all(1)
    ends = np.minimum(corners[kept], stated)
    return bool((ends <= np.add(size, TOLERANCE)).all())


def copy_problems(tables: Sequence[Annotations], facts: Mapping[str, Facts]) -> Iterator[Problem]:
    """Images that stand in training and validation, or twice in one of them."""
    contents = [_by_content(table, facts) for table in tables]
    for groups in contents:
        for first, *others in groups.values():
            if others:
                yield Problem('image-duplicate', _same_content(others), first)
    if len(tables) == 2:
        train, val = tables
        in_train = set(train.paths)
        for image, path in zip(val.image_ids.tolist(), val.paths, strict=True):
            same = contents[0].get(facts[path].digest) if path in facts else None
            if path in in_train:
                yield Problem('val-in-train', 'stands in both', path, image)
            elif same:
                yield Problem('val-in-train', _same_content(same), path, image)


def _by_content(table: Annotations, facts: Mapping[str, Facts]) -> dict[bytes, list[str]]:
    groups: dict[bytes, list[str]] = defaultdict(list)
    for path in dict.fromkeys(table.paths):
        if path in facts and facts[path].digest:
            groups[facts[path].digest].append(path)
    return groups


def _same_content(paths: Sequence[str]) -> str:
    more = f' and {len(paths) - 3} more' if len(paths) > 3 else ''
    return f'the same content as {", ".join(paths[:3])}{more}'


def orphan_problems(
    tables: Sequence[Annotations], folders: Sequence[str], other_names: Iterable[str] = ()
) -> Iterator[Problem]:
    """Images in the folders that no annotation file lists.

    Further files list ``other_names``, which are relative to any of the folders.
    """
    known = {path for table in tables for path in table.paths}
    roots = [os.path.realpath(folder) for folder in folders]
    known |= {os.path.normpath(os.path.join(root, n)) for n in other_names for root in roots}
    for root in roots:
        closed: list[OSError] = []
        for parent, files in walk(root, closed.append) if os.path.isdir(root) else ():
            for name in files:
                path = os.path.join(parent, name)
                if path not in known and is_image(name) and not name.startswith('.'):
                    known.add(path)
                    yield Problem('image-orphan', 'no annotation file lists it', path)
        for error in closed:
            yield Problem('folder-unreadable', f'{error.strerror}', error.filename)
