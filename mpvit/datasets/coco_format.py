"""What the entries of a COCO annotation file have to look like, besides boxes and sizes."""

from collections.abc import Callable
from typing import Any

#: Marks of an annotation that are 0 or 1 where they are there.
FLAGS = ('iscrowd', 'ignore')
_LISTS = ('images', 'annotations', 'categories')
_INT64 = 2**63  # ids beyond do not fit into the arrays of an evaluation


def form_fault(content: Any) -> str | None:
    """What makes the content of a file something else than a dataset, or None."""
    if not isinstance(content, dict):
        kind = 'a list; is it a file of detections?' if isinstance(content, list) else 'no object'
        return f'at the top it is {kind}'
    # a list of annotations that is missing, not null, may be meant
    missing = [
        name
        for name in _LISTS
        if not isinstance(content.get(name, [] if name == 'annotations' else None), list)
    ]
    return f'there is no list {", ".join(missing)}' if missing else None


def _image_fault(entry: Any) -> str | None:
    """What makes an image unusable besides its size, or None."""
    fault = _id_fault(entry, 'id')
    if fault is None:
        name = entry.get('file_name')
        if type(name) is not str or not name or '\0' in name or not _encodes(name):
            return f'file_name is {short(name)}'
    return fault


def _encodes(name: str) -> bool:
    """Whether it is text that can be written: half of a surrogate pair, which JSON has, is not."""
    return name.isascii() or not any('\ud800' <= letter <= '\udfff' for letter in name)


def annotation_fault(entry: Any) -> str | None:
    """What makes an annotation unusable besides its box, or None."""
    fault = _id_fault(entry, 'id', 'image_id', 'category_id')
    if fault is None:
        for key in FLAGS:
            # a text such as "false" would count as true
            if entry.get(key, 0) not in (0, 1, None):
                return f'{key} is {short(entry[key])}, not 0 or 1'
    return fault


def _category_fault(entry: Any) -> str | None:
    fault = _id_fault(entry, 'id')
    if fault is None:
        name = entry.get('name')
        if type(name) is not str or not _encodes(name):
            return f'name is {short(name)}'
    return fault


def _id_fault(entry: Any, *keys: str) -> str | None:
    if type(entry) is not dict:
        return 'is no object'
    for key in keys:
        id_ = entry.get(key)
        if type(id_) is not int:
            return f'{key} is {short(id_)}, not an integer'
        if not -_INT64 <= id_ < _INT64:
            return f'{key} is {short(id_)}, not an integer of 64 bits'
    return None


#: What makes an entry of each list unusable, or None.
FAULTS: dict[str, Callable[[Any], str | None]] = dict(
    images=_image_fault, annotations=annotation_fault, categories=_category_fault
)


def short(value: Any) -> str:
    """A value as text of limited length."""
    try:
        text = 'missing' if value is None else repr(value)
    except RecursionError:
        text = f'a deeply nested {type(value).__name__}'
    return text if len(text) <= 60 else text[:57] + '...'
