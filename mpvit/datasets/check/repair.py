"""A repaired copy of an annotation file."""

import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import count, product
from typing import Any

import numpy as np

from mpvit.datasets.check.entries import box_faults
from mpvit.datasets.check.image_files import Facts
from mpvit.datasets.check.images import boxes_fit
from mpvit.datasets.coco_format import FLAGS, annotation_fault
from mpvit.datasets.table import Annotations, Entry, number
from mpvit.errors import UserError
from mpvit.files.writing import write

Changes = Counter[str]
_IDS = dict(images=('id',), annotations=('id', 'image_id', 'category_id'), categories=('id',))
_INTEGER = re.compile(r'-?\d{1,15}(\.0)?', re.ASCII)
_FLAG_TEXTS = {'0': 0, 'false': 0, 'no': 0, '': 0, '1': 1, 'true': 1, 'yes': 1}


def write_repaired(
    table: Annotations, facts: Mapping[str, Facts], target: str | os.PathLike[str]
) -> list[str]:
    """Write a repaired copy of an annotation file; the file itself stays as it is.

    Returns:
        What was changed, a line for each kind of change.

    Raises:
        UserError: ``target`` exists or cannot be written, or nothing would be left.
    """
    content, changes = repair(table, facts)
    text = json.dumps(content, ensure_ascii=False)
    write(target, text, new=True)
    return changes


def repair(table: Annotations, facts: Mapping[str, Facts]) -> tuple[Entry, list[str]]:
    """Repair what the checks marked ``repaired`` find.

    Returns:
        The repaired content, and what was changed, a line for each kind of change.

    Raises:
        UserError: Nothing would be left.
    """
    changes: Changes = Counter()
    table = _with_integers(table.whole(), changes)
    images, new_id = _images(table, facts, changes)
    if not images:
        raise UserError(
            f'{table.file}: a repair would drop all images; is {table.folder} the right folder?'
        )
    annotations = list(_annotations(table, new_id, changes))
    content = dict(table.content, images=images, annotations=annotations)

    def copied() -> Annotations:
        return Annotations(table.file, content, table.folder)

    _correct_sizes(copied(), facts, changes)
    _clip(copied(), changes)
    content['annotations'] = _sound(copied(), changes)
    return content, [f'{text}: {times}' for text, times in changes.items() if times]


def _with_integers(table: Annotations, changes: Changes) -> Annotations:
    """A copy whose ids are integers where they are text or decimal numbers that say one."""
    content = dict(table.content)
    for kind, keys in _IDS.items():
        entries = [dict(e) if type(e) is dict else e for e in content[kind]]
        for entry, key in product(entries, keys):
            value = entry.get(key) if type(entry) is dict else None
            if isinstance(value, str | float) and _INTEGER.fullmatch(str(value)):
                entry[key] = int(float(value))
                changes['ids written as integers'] += 1
        content[kind] = entries
    return Annotations(table.file, content, table.folder)


def _images(
    table: Annotations, facts: Mapping[str, Facts], changes: Changes
) -> tuple[list[Entry], dict[int, int]]:
    """Copies of the images that can be used, one a file; and what each former id stands for now."""
    changes['malformed images dropped'] += len(table.content['images']) - len(table.images)
    files = defaultdict(set)
    for image, path in zip(table.images, table.paths, strict=True):
        files[image['id']].add(path)
    images: list[Entry] = []
    ids: dict[int, int] = {}
    by_path: dict[str, int] = {}
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
        elif path in by_path:
            ids[id_] = by_path[path]
            changes['images merged with another entry of the same file'] += 1
        else:
            ids[id_] = by_path[path] = id_
            image = dict(image)
            if not sized and fact is not None:
                image['width'], image['height'] = fact.size
                changes['missing image sizes filled in'] += 1
            images.append(image)
    return images, ids


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
        if type(entry) is dict:
            _read_flags(entry, changes)
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


def _read_flags(entry: Entry, changes: Changes) -> None:
    """Write 0 or 1 where a text says so, in place."""
    for key in FLAGS:
        value = str(entry.get(key)).strip().lower()
        if isinstance(entry.get(key), str) and value in _FLAG_TEXTS:
            entry[key] = _FLAG_TEXTS[value]
            changes[f'{key} written as 0 or 1 instead of text'] += 1


def _correct_sizes(table: Annotations, facts: Mapping[str, Facts], changes: Changes) -> None:
    """Take the size of the file where the boxes fit into it, in place."""
    boxes_of_images = (table.boxes[table.rows_in(row)] for row in range(len(table.images)))
    columns = (table.images, table.paths, table.sizes.tolist(), boxes_of_images)
    for image, path, stated, boxes in zip(*columns, strict=True):
        fact = facts.get(path)
        if fact is None or tuple(stated) in (fact.size, fact.turned().size):
            continue
        if boxes_fit(boxes, stated, fact.size):
            image['width'], image['height'] = fact.size
            changes['image sizes corrected'] += 1


def _clip(table: Annotations, changes: Changes) -> None:
    """Clip boxes to their images, in place; areas shrink too: a mask is never larger."""
    rows = np.flatnonzero(box_faults(table)['partly_outside'])
    for row, (x1, y1, x2, y2) in zip(rows.tolist(), table.clipped(rows).tolist(), strict=True):
        entry, box = table.annotations[row], (x1, y1, x2 - x1, y2 - y1)
        entry['bbox'] = [int(n) if n == int(n) else n for n in box]
        if math.isfinite(number(entry.get('area'))):
            entry['area'] = min(entry['area'], box[2] * box[3])
        changes['boxes clipped to their image'] += 1


def _sound(table: Annotations, changes: Changes) -> list[Entry]:
    """Drop boxes that are none, and fill in what is missing."""
    faults = box_faults(table)
    drop = faults['malformed'] | faults['not_finite']
    changes['boxes that are not four finite numbers dropped'] += int(drop.sum())
    for what in ('no_area', 'outside', 'duplicate'):
        fault = faults[what] & ~drop
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
