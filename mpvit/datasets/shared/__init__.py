"""Annotation files too large for the memory of every process: read once, then shared.

The process that comes first reads such a file piece by piece and writes its numbers as arrays into
a folder; it and all others, dataloader workers included, map these into memory, where the system
keeps one copy. Entries are decoded when they are asked for: images from a copy there, annotations
from the annotation file. Nothing in the folder can be executed, as a pickle could be.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from mpvit.datasets.shared.arrays import HEADER, VERSION
from mpvit.datasets.shared.reading import SharedAnnotations, Stamp, opened, stamp_of
from mpvit.datasets.shared.writing import write_arrays
from mpvit.files.untrusted import ANNOTATION_BYTES, check_regular
from mpvit.files.writing import UNFINISHED, NotWritten

#: Environment variable: the folder of the arrays, or 'off' for none.
VARIABLE = 'MPVIT_ANNOTATIONS'
#: Bytes from which on a file is shared. Below, records take at most two GB in eight processes.
LEAST_BYTES = 100 * 10**6

_DAYS = 30  # after which arrays that nobody opened are removed
_CLOCK_TICK = 10**8  # ns within which a file may be written twice with one time stamp


def shared_annotations(file: str) -> 'SharedAnnotations | None':
    """An annotation file by its arrays, which are written first where they are missing.

    Args:
        file: Local file.

    Returns:
        The table; None for a file that is small or is not there, and where arrays are switched off
        or cannot be written, which a line on stderr says.

    Raises:
        AnnotationFileError: The file is no JSON or not in COCO format, or is changed meanwhile.
    """
    folder = arrays_folder()
    try:
        if folder is None or os.stat(file).st_size < LEAST_BYTES:
            return None
        check_regular(file, ANNOTATION_BYTES)
        stamp = _settled(file)
    except (OSError, ValueError):  # which the ordinary way refuses in its words
        return None
    place = folder / _name(file, stamp)
    found = opened(file, place, stamp)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _in_turn(folder / f'.{place.name}.lock'):
            found = opened(file, place, stamp)
            if found is None:
                _remove_old(folder)
                write_arrays(file, place, stamp)
    except (NotWritten, OSError) as error:
        found = opened(file, place, stamp)  # without locks another process may have written them
        if found is not None:
            return found
        sys.stderr.write(
            f'{file} is read by every process into its own memory: {error}. {VARIABLE} names '
            'another folder\n'
        )
        return None
    return found or opened(file, place, stamp)


def arrays_folder() -> Path | None:
    """Where arrays are kept; None for nowhere."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return None if chosen.lower() == 'off' else Path(chosen).expanduser()
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(cache).expanduser() / 'mpvit' / 'annotations'


def _settled(file: str) -> Stamp:
    """The stamp of a file that was not written just now, or else might change with none to see."""
    while True:
        stamp = stamp_of(file)
        if not 0 <= time.time_ns() - stamp[0] < _CLOCK_TICK:
            return stamp
        time.sleep(_CLOCK_TICK / 10**9)


def _name(file: str, stamp: Stamp) -> str:
    """Name of the folder of a file's arrays; a file that is changed has another one."""
    what = json.dumps([VERSION, os.path.realpath(file), *stamp])
    return hashlib.sha256(what.encode(errors='backslashreplace')).hexdigest()[:32]


@contextmanager
def _in_turn(lock_file: Path) -> Iterator[None]:
    """Be the only process that writes, as far as the file system has locks; two do no harm."""
    lock = FileLock(lock_file)
    with suppress(OSError, NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_old(folder: Path) -> None:
    """Remove arrays that were not opened for long, and what killed processes left."""
    for place in folder.iterdir():
        unfinished = place.name.startswith(UNFINISHED)
        if unfinished or re.fullmatch('[0-9a-f]{32}', place.name):
            with suppress(OSError):
                used = (place if unfinished else place / HEADER).stat().st_mtime
                if time.time() - used > (1 if unfinished else _DAYS) * 86400:
                    shutil.rmtree(place, ignore_errors=True)
