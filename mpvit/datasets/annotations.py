"""The one reader of COCO annotation files: what one part of the project counts, all count.

Training, evaluation, the checker, the search for a dataset's files and the pictures read through
`read_annotations`. A file that was read is kept while it is unchanged, since a training needs it
several times before its first step, and dropped before a process is forked: the workers of a
dataloader would each get a copy. Of large files processes share one (`mpvit.datasets.shared`).
Imports neither torch nor mmdet.
"""

import json
import os
import time
from dataclasses import dataclass
from typing import Any

from mpvit.datasets.coco_format import form_fault
from mpvit.datasets.shared import shared_annotations
from mpvit.datasets.table import AnnotationFileError, Annotations, AnyPath, collector_off
from mpvit.files.paths import is_address
from mpvit.files.untrusted import JSON_BYTES, read_untrusted

#: Objects are small below the first of these areas in pixels and large from the second on.
SIZE_LIMITS = (32**2, 96**2)
_CLOCK_TICK = 10**8  # ns within which a file may be written twice with one time stamp
_MOST_KEPT = 3  # files: of training, validation and test


@dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Attributes:
        ann_file: Annotation file in COCO format.
        images: Folder to which the ``file_name`` of the images are relative.
    """

    ann_file: AnyPath
    images: AnyPath


def read_annotations(
    file: AnyPath,
    *,
    strict: bool = True,
    unlabelled: bool = False,
    backend_args: dict[str, Any] | None = None,
) -> Annotations:
    """Read an annotation file, or take what was read before if the file is still the same.

    Args:
        file: File in COCO format, or the address of one that mmengine can read.
        strict: Refuse a file with malformed entries, instead of leaving these out.
        unlabelled: Accept a file without the list of annotations, such as that of COCO's test-dev.
        backend_args: Arguments of mmengine's file backend.

    Raises:
        AnnotationFileError: It cannot be read, or is no JSON or not in COCO format.
    """
    path = os.fspath(file)
    remote = backend_args is not None or is_address(path)
    stamp = None if remote else _stamp(path)
    kept = _kept.get(path)
    if kept is not None and kept[0] == stamp:
        found = kept[1]
    else:
        shared = None if remote else shared_annotations(path)
        found = shared or _parse(path, _bytes(path, remote, backend_args))
        if stamp is not None:
            _kept.pop(path, None)
            _kept[path] = stamp, found
            while len(_kept) > _MOST_KEPT:
                del _kept[next(iter(_kept))]
    if not unlabelled and 'annotations' not in found.content:
        raise found.malformed_error('there is no list annotations')
    fault = next(found.faults(), None) if strict else None
    if fault is not None:
        kind, place, reason = fault
        raise found.malformed_error(f'{kind}[{place}]: {reason}')
    return found


_kept: dict[str, tuple[tuple[int, ...], Annotations]] = {}


def forget() -> None:
    """Drop the files that were read."""
    _kept.clear()


def _stamp(path: str) -> tuple[int, ...] | None:
    """What changes when a file is written again; None where that cannot be relied on."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if abs(time.time_ns() - status.st_mtime_ns) < _CLOCK_TICK:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _bytes(path: str, remote: bool, backend_args: dict[str, Any] | None) -> bytes:
    try:
        if not remote:
            return read_untrusted(path, JSON_BYTES)
        from mmengine.fileio import get

        data: bytes = get(path, backend_args)
    except OSError as error:
        reason = f'cannot be read: {error.strerror or error}'
        raise AnnotationFileError('file-missing', path, reason) from error
    return data


def _parse(file: str, data: bytes) -> Annotations:
    try:
        text = data.decode('utf-8')
    except UnicodeDecodeError as error:
        reason = f'is no JSON in UTF-8: {error}'
        raise AnnotationFileError('json-invalid', file, reason) from error
    unmarked = text.removeprefix('\ufeff')
    with collector_off():
        try:
            content = json.loads(unmarked)
        except (ValueError, RecursionError) as error:
            reason = f'is no valid JSON: {error}' if unmarked.strip() else 'is empty'
            raise AnnotationFileError('json-invalid', file, reason) from error
        fault = form_fault(content)
        if fault:
            raise AnnotationFileError('not-coco', file, f'is not in COCO format: {fault}')
        return Annotations(file, content, starts_with_mark=text.startswith('\ufeff'))
