"""A repaired copy of an annotation file."""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from mpvit.datasets.annotations import (
    Annotations,
    Entry,
    annotation_fault,
    image_fault,
    number,
)
from mpvit.datasets.check.entries import box_faults
from mpvit.datasets.check.image_files import Facts
from mpvit.datasets.check.images import boxes_by_image, boxes_fit
from mpvit.errors import UserError

Changes = Counter[str]


def write_repaired(
    table: Annotations, facts: Mapping[str, Facts], target: str | os.PathLike[str]
) -> list[str]:
    """Write a repaired copy of an annotation file; the file itself stays as it is.

    Args:
        table: The file.
        facts: Of all its images, by path.
        target: File to write.

    Returns:
        What was changed, a line for each kind of change.

    Raises:
        UserError: ``target`` exists or cannot be written, or nothing would be left.
    """
    content, changes = repair(table, facts)
    text = json.dumps(content, ensure_ascii=False)
    try:
        with open(target, 'x', encoding='utf-8') as file:
            try:
                file.write(text)
                file.flush()
            except OSError:
                Path(target).unlink()  # no half of a file
                raise
    except OSError as error:
        raise UserError(f'cannot write {target}: {error.strerror}') from error
    return changes


def repair(table: Annotations, facts: Mapping[str, Facts]) -> tuple[Entry, list[str]]:
    """Repair what the checks marked ``repaired`` find.

    Args:
        table: The file.
        facts: Of all its images, by path.

    Returns:
        The repaired content, and what was changed, a line for each kind of change.

    Raises:
        UserError: Nothing would be left.
    """
    changes: Changes = Counter()
    new_id = _images(table, facts, changes)
    content = dict(table.content)
    content['images'] = list(new_id.images)
    content['annotations'] = list(_annotations(table, new_id.ids, changes))
    if not content['images']:
        raise UserError(
            f'{table.file}: a repair would drop all images; is {table.folder} the right folder?'
        )
    copy = Annotations(table.file, content, table.folder)
    _correct_sizes(copy, facts, changes)
    content['annotations'] = _boxes(copy, changes)
    return content, [f'{text}: {times}' for text, times in changes.items() if times]


class _Kept:
    """The images that stay, and the id that each former id stands for now."""

    def __init__(self) -> None:
        self.images: list[Entry] = []
        self.ids: dict[int, int] = {}
        self.by_path: dict[str, int] = {}


def _images(table: Annotations, facts: Mapping[str, Facts], changes: Changes) -> _Kept:
    """Drop images that cannot be used, and merge those with the same file."""
    kept = _Kept()
    malformed = sum(image_fault(entry) is not None for entry in table.content['images'])
    changes['malformed images dropped'] += malformed
    files = defaultdict(set)
    for image, path in zip(table.images, table.paths, strict=True):
        files[image['id']].add(path)
    for image, path, size in zip(table.images, table.paths, table.sizes, strict=True):
        id_ = image['id']
        fact = facts.get(path)
        sized = not np.isnan(size[0])
        if len(files[id_]) > 1:
            changes['images dropped that share an id with another file'] += 1
        elif fact is not None and fact.fault:
            changes['missing or unreadable images dropped'] += 1
        elif not sized and fact is None:
            changes['images without a size dropped'] += 1
        elif path in kept.by_path:
            kept.ids[id_] = kept.by_path[path]
            changes['images merged with another entry of the same file'] += 1
        else:
            kept.ids[id_] = kept.by_path[path] = id_
            image = dict(image)
            if not sized and fact is not None:
                image['width'], image['height'] = fact.size
                changes['missing image sizes filled in'] += 1
            kept.images.append(image)
    return kept


def _annotations(
    table: Annotations, new_id: Mapping[int, int], changes: Changes
) -> Iterator[Entry]:
    """Annotations of images that stay, each with an id of its own."""
    categories = {category['id'] for category in table.categories}
    used = {entry['id'] for entry in table.annotations}
    fresh = count(max(used, default=0) + 1)
    seen = set()
    for raw in table.content['annotations']:
        entry: Any = dict(raw) if type(raw) is dict else raw
        if type(entry) is dict and (type(entry.get('id')) is not int or entry['id'] in seen):
            entry['id'] = next(fresh)
            changes['annotations given a new id'] += 1
        if annotation_fault(entry):
            changes['malformed annotations dropped'] += 1
        elif entry['category_id'] not in categories:
            changes['annotations of an unknown category dropped'] += 1
        elif entry['image_id'] not in new_id:
            changes['annotations of dropped or unknown images dropped'] += 1
        else:
            seen.add(entry['id'])
            entry['image_id'] = new_id[entry['image_id']]
            yield entry


def _correct_sizes(table: Annotations, facts: Mapping[str, Facts], changes: Changes) -> None:
    """Take the size of the file where the boxes fit into it, in place."""
    boxes = boxes_by_image(table)
    for row, path in enumerate(table.paths):
        fact = facts.get(path)
        stated = tuple(table.sizes[row])
        if fact is None or stated == fact.size:
            continue
        if stated != fact.turned().size and boxes_fit(boxes(row), stated, fact.size):
            table.sizes[row] = fact.size
            table.images[row]['width'], table.images[row]['height'] = fact.size
            changes['image sizes corrected'] += 1


def _boxes(table: Annotations, changes: Changes) -> list[Entry]:
    """Clip boxes, drop those that are none, and fill in what is missing."""
    faults = box_faults(table)
    sizes = table.image_sizes
    for row in np.flatnonzero(faults.partly_outside):
        table.boxes[row] = _clipped(table.boxes[row], sizes[row])
        _clip_entry(table.annotations[row], table.boxes[row])
        changes['boxes clipped to their image'] += 1
    faults = box_faults(table)
    drop = faults.malformed | faults.not_finite
    changes['boxes that are not four finite numbers dropped'] += int(drop.sum())
    for what in ('no_area', 'outside', 'duplicate'):
        fault = getattr(faults, what) & ~drop
        changes[f'boxes dropped: {what.replace("_", " ")}'] += int(fault.sum())
        drop |= fault
    kept = [entry for entry, gone in zip(table.annotations, drop, strict=True) if not gone]
    for entry in kept:
        if not math.isfinite(number(entry.get('area'))):
            entry['area'] = entry['bbox'][2] * entry['bbox'][3]
            changes['areas filled in with that of the box'] += 1
        if 'iscrowd' not in entry:
            entry['iscrowd'] = 0
            changes['iscrowd filled in with 0'] += 1
    return kept


def _clipped(box: np.ndarray, size: np.ndarray) -> np.ndarray:
    start = np.maximum(box[:2], 0)
    end = np.minimum(box[:2] + box[2:], size)
    return np.concatenate([start, end - start])


def _clip_entry(entry: Entry, box: np.ndarray) -> None:
    """The area shrinks with the box: that of a mask is never larger."""
    entry['bbox'] = [int(n) if n == int(n) else n for n in box.tolist()]
    area = number(entry.get('area'))
    if math.isfinite(area):
        entry['area'] = min(area, float(box[2] * box[3]))
