"""Arrays in the files of a folder, which processes map into their memory."""

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mpvit.files.untrusted import ANNOTATION_BYTES, check_regular

VERSION = 1  # of the arrays; others are made anew
HEADER = 'header.json'
TYPES = dict(
    image_ids='<i8',
    sizes='<f8',
    image_starts='<i8',
    image_places='<i8',
    image_text='|u1',
    images_malformed='<i8',
    ids='<i8',
    boxes='<f8',
    malformed='|b1',
    stated_areas='<f8',
    crowd='|b1',
    states_crowd='|b1',
    ignored='|b1',
    annotation_places='<i8',
    annotations_malformed='<i8',
    stated_image='<i8',
    stated_category='<i8',
    image_row='<i8',
    category_row='<i8',
    has_area='|b1',
    by_image='<i8',
    starts='<i8',
)
WIDTHS = dict(sizes=2, boxes=4)
PASSING = ('stated_image', 'stated_category')  # needed until there are rows
# The same properties of `Annotations`, computed from the others.
DERIVED = ('image_row', 'category_row', 'has_area', 'by_image', 'starts')
Arrays = dict[str, NDArray[Any]]


def kept() -> list[str]:
    """Names of the arrays of a finished folder."""
    return [name for name in TYPES if name not in PASSING]


def mapped(place: Path, name: str, rows: int) -> NDArray[Any]:
    """Map an array into memory, to be read only.

    Raises:
        OSError: Its file cannot be read.
        ValueError: The file has another size.
    """
    width = WIDTHS.get(name)
    shape = (rows,) if width is None else (rows, width)
    path, kind = place / name, np.dtype(TYPES[name])
    check_regular(path, ANNOTATION_BYTES)
    if path.stat().st_size != kind.itemsize * rows * (width or 1):
        raise ValueError(f'{path} is of another size')
    if not rows:  # which cannot be mapped
        return np.empty(shape, kind)
    return np.asarray(np.memmap(path, kind, 'r', shape=shape))


class Writer(ExitStack):
    """Arrays that grow, each in a file; closed by the end of a ``with`` block."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self.rows: dict[str, int] = {}

    def add(self, name: str, rows: Any) -> None:
        """Append rows to an array."""
        array = np.ascontiguousarray(rows, TYPES[name])
        if name not in self._files:
            self.begin(name)
        self._files[name].write(array.reshape(-1).view(np.uint8).data)
        self.rows[name] += len(array)

    def begin(self, name: str) -> None:
        """Make an array empty."""
        if name in self._files:
            self._files[name].close()
        self._files[name] = file = open(self._folder / name, 'wb')
        self.callback(_closed, file)
        self.rows[name] = 0

    def drop(self, name: str) -> None:
        """Remove an array."""
        self._files.pop(name).close()
        (self._folder / name).unlink()
        del self.rows[name]

    def flush(self) -> None:
        """Write what is in buffers."""
        for file in self._files.values():
            file.flush()

    def to_disk(self) -> None:
        """Flush everything to the disk, so that a power cut leaves no arrays of zeros."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())


def _closed(file: BinaryIO) -> None:
    with suppress(OSError):  # a full disk, of which a line before has told
        file.close()
