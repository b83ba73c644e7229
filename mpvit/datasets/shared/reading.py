"""An annotation file as arrays that processes share."""

import json
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mpvit.datasets.coco_format import FAULTS
from mpvit.datasets.shared.arrays import HEADER, VERSION, Arrays, kept, mapped
from mpvit.datasets.table import AnnotationFileError, Annotations, AnyPath, Entry, Ints
from mpvit.errors import UserError
from mpvit.files.untrusted import ANNOTATION_BYTES, TEXT_BYTES, open_untrusted, read_untrusted

_READ, _MOST_READ = 2**12, 2**26  # entries, and bytes, of a file that are read at a time
Stamp = tuple[int, int]


class Entries(Sequence[Any]):
    """Entries of a list of JSON, each decoded when it is asked for.

    Args:
        read: Gives the bytes between two offsets.
        places: Offset of the first byte of each entry, and of the end of the list, ``(K + 1,)``.
        rows: Which of the entries, ``(n,)``; None for all.
    """

    def __init__(
        self, read: Callable[[int, int], bytes], places: Ints, rows: Ints | None = None
    ) -> None:
        self._read, self._places = read, places
        self._rows = rows
        self._decode = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._places) - 1 if self._rows is None else len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """An entry, or some of the entries."""
        if isinstance(index, slice):
            return self.at(np.arange(len(self))[index])
        row = range(len(self))[operator.index(index)]
        row = row if self._rows is None else int(self._rows[row])
        return self._decoded(self._read(int(self._places[row]), int(self._places[row + 1])))

    def __iter__(self) -> Iterator[Any]:
        """Decode one after the other, and read many at once."""
        for start in range(0, len(self), _READ):
            rows = range(start, min(start + _READ, len(self)))
            numbers = np.arange(rows.start, rows.stop) if self._rows is None else self._rows[rows]
            first, last = int(self._places[numbers.min()]), int(self._places[numbers.max() + 1])
            if last - first > _MOST_READ:
                yield from map(self.__getitem__, rows)
                continue
            data = self._read(first, last)
            begins, ends = self._places[numbers] - first, self._places[numbers + 1] - first
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                yield self._decoded(data[begin:end])

    def at(self, rows: Ints) -> 'Entries':
        """Some of the entries."""
        return Entries(self._read, self._places, rows if self._rows is None else self._rows[rows])

    def _decoded(self, data: bytes) -> Any:
        try:
            return self._decode(data.decode(), 0)[0]
        except (ValueError, StopIteration) as error:  # of damaged arrays
            raise UserError(f'an entry cannot be decoded: {data[:40]!r}; start again') from error


class SharedAnnotations(Annotations):
    """An annotation file of which only arrays are in memory, in pages that processes share.

    Args:
        file: Annotation file.
        place: Folder of the arrays.
        header: What is no array: ``categories``, ``lists``, ``mark``, ``ids_repeat``.
        arrays: By name; those in `DERIVED` may be missing.
        stamp: Time and size of the file.
    """

    shared: ClassVar[bool] = True

    def __init__(self, file: str, place: Path, header: Entry, arrays: Arrays, stamp: Stamp) -> None:
        self.file, self.folder = file, ''
        self._place, self._stamp = place, stamp
        self._path = os.path.realpath(file)
        self.starts_with_mark = header['mark']
        self._malformed = {kind: arrays[f'{kind}_malformed'] for kind in ('images', 'annotations')}
        self._text = arrays['image_text']
        all_images = Entries(self._of_file, arrays['image_places'])
        all_annotations = Entries(self._of_file, arrays['annotation_places'])
        content = dict(images=all_images, annotations=all_annotations)
        self.content = {kind: content[kind] for kind in header['lists'] if kind in content}
        self.content['categories'] = header['categories']
        self.images = Entries(self._of_copy, arrays['image_starts'])
        self.annotations = _without(all_annotations, self._malformed['annotations'])
        fault_of = FAULTS['categories']
        self.categories = [entry for entry in header['categories'] if fault_of(entry) is None]
        # in the place of what `Annotations` would compute
        vars(self).update({name: arrays[name] for name in arrays if hasattr(Annotations, name)})
        if 'ids_repeat' in header:
            vars(self)['ids_repeat'] = header['ids_repeat']

    def faults(self) -> Iterator[tuple[str, int, str]]:
        """The list of each entry that is left out, its place there, and why."""
        for kind, fault_of in FAULTS.items():
            entries = self.content.get(kind, ())
            places = self._malformed.get(kind, range(len(entries)))
            for index in map(int, places):
                reason = fault_of(entries[index])
                if reason:
                    yield kind, index, reason

    def entries(self, rows: Ints) -> Sequence[Entry]:
        """The annotations of some rows, which are read when they are asked for."""
        return self.annotations.at(rows) if isinstance(self.annotations, Entries) else []

    def whole(self) -> Annotations:
        """The same in memory, read from the file anew."""
        with open_untrusted(self._path, ANNOTATION_BYTES) as file:
            content = json.loads(file.read().decode('utf-8-sig'))
        return Annotations(self.file, content, self.folder, self.starts_with_mark)

    def _of_file(self, start: int, end: int) -> bytes:
        """Bytes of the annotation file, which has to be as it was."""
        with open_untrusted(self._path, ANNOTATION_BYTES) as file:
            if stamp_of(file.fileno()) != self._stamp:
                reason = 'was changed while it is in use; start again'
                raise AnnotationFileError('json-invalid', self.file, reason)
            file.seek(start)
            return file.read(end - start)

    def _of_copy(self, start: int, end: int) -> bytes:
        return self._text[start:end].tobytes()

    def __copy__(self) -> 'SharedAnnotations':
        """Another table of the same arrays."""
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> 'SharedAnnotations':
        """The same, of which nothing may be changed."""
        return self

    def __reduce__(self) -> Any:
        """What another process needs to open the arrays itself."""
        return _reopened, (self.file, self._path, self._place, self._stamp, self.folder)


def opened(file: str, place: Path, stamp: Stamp) -> SharedAnnotations | None:
    """The table of a folder; None if it is missing, damaged or of another version of the file."""
    try:
        header = json.loads(read_untrusted(place / HEADER, TEXT_BYTES))
        if header['version'] != VERSION or tuple(header['stamp']) != stamp:
            return None
        arrays = {name: mapped(place, name, header['rows'][name]) for name in kept()}
        found = SharedAnnotations(file, place, header, arrays, stamp)
    except (OSError, ValueError, TypeError, LookupError):
        return None
    with suppress(OSError):  # of somebody else
        os.utime(place / HEADER)
    return found


def stamp_of(file: str | int) -> Stamp:
    """What changes when a file is written again."""
    status = os.stat(file)
    return status.st_mtime_ns, status.st_size


def _reopened(
    file: str, path: str, place: Path, stamp: Stamp, folder: AnyPath
) -> SharedAnnotations:
    """Open the arrays in another process, to which their table was sent."""
    found = opened(path, place, stamp)
    if found is None:
        raise AnnotationFileError('file-missing', file, f'was read, but its arrays left {place}')
    found.file, found.folder = file, folder
    return found


def _without(entries: Entries, malformed: Ints) -> Entries:
    if not len(malformed):
        return entries
    return entries.at(np.delete(np.arange(len(entries)), malformed))
