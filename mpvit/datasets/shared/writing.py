"""Reading a large annotation file piece by piece, to write its numbers as arrays."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from mpvit.datasets.coco_format import FAULTS, form_fault
from mpvit.datasets.shared.arrays import (
    DERIVED,
    HEADER,
    PASSING,
    TYPES,
    VERSION,
    Writer,
    mapped,
)
from mpvit.datasets.shared.reading import SharedAnnotations, Stamp, stamp_of
from mpvit.datasets.table import AnnotationFileError, Annotations, Entry, collector_off
from mpvit.files.json_stream import JsonStream, NotUtf8
from mpvit.files.untrusted import ANNOTATION_BYTES, open_untrusted
from mpvit.files.writing import whole_folder

_CHUNK = 2**14  # entries that are turned into arrays at a time


def write_arrays(file: str, place: Path, stamp: Stamp) -> None:
    """Write the arrays of a file; see `shared_annotations`."""
    sys.stderr.write(f'Reading {file} once for all processes; its arrays go to {place}\n')
    if place.exists():  # damaged
        shutil.rmtree(place)
    with whole_folder(place) as work, Writer(work) as writer:
        with open_untrusted(file, ANNOTATION_BYTES) as source:
            header = _stream(file, source, writer)
            if (stamp_of(source.fileno()), stamp_of(file)) != (stamp, stamp):
                reason = 'was changed while it was read; start again'
                raise AnnotationFileError('json-invalid', file, reason)
        writer.flush()
        arrays = {name: mapped(work, name, rows) for name, rows in writer.rows.items()}
        # the same code as for every other file
        table = SharedAnnotations(file, work, header, arrays, stamp)
        for name in DERIVED:
            writer.add(name, getattr(table, name))
        for name in PASSING:
            writer.drop(name)
        rows = writer.rows
        header |= dict(version=VERSION, stamp=stamp, rows=rows, ids_repeat=table.ids_repeat)
        writer.to_disk()
        with open(work / HEADER, 'w') as target:
            json.dump(header, target)
            target.flush()
            os.fsync(target.fileno())


@collector_off()
def _stream(file: str, source: BinaryIO, writer: 'Writer') -> Entry:
    """Write the arrays of a file but for what follows from them; gives the header.

    Raises:
        AnnotationFileError: It is no JSON or not in COCO format.
    """
    for name in TYPES:
        if name not in DERIVED:
            writer.begin(name)
    found: Entry = {}  # what is in the file, with empty lists for those that are arrays
    stream = JsonStream(source)
    try:
        first = stream.peek()
        if first and first != '{':
            found = [] if first == '[' else stream.value()  # for the error
        else:
            found = _members(stream, writer, os.fstat(source.fileno()).st_size)
    except NotUtf8 as error:
        raise AnnotationFileError('json-invalid', file, f'is no JSON in UTF-8: {error}') from error
    except (ValueError, RecursionError) as error:
        reason = f'is no valid JSON: {error}' if first else 'is empty'
        raise AnnotationFileError('json-invalid', file, reason) from error
    fault = form_fault(found)
    if fault:
        raise AnnotationFileError('not-coco', file, f'is not in COCO format: {fault}')
    if 'annotations' not in found:
        writer.add('annotation_places', [0])
    lists = [kind for kind in FAULTS if kind in found]
    return dict(categories=found['categories'], lists=lists, mark=stream.starts_with_mark)


def _members(stream: JsonStream, writer: 'Writer', size: int) -> Entry:
    found: Entry = {}
    with tqdm(
        desc='reading annotations', total=size, unit='B', unit_scale=True, disable=None
    ) as bar:
        for key in stream.members():
            if key in _WRITTEN and stream.peek() == '[':
                for _ in _list(stream, key, writer):
                    bar.update(stream.offset - bar.n)
                found[key] = []
            else:
                value = stream.value()
                if key in FAULTS:
                    found[key] = value
    return found


def _list(stream: JsonStream, kind: str, writer: 'Writer') -> Iterator[None]:
    """Write the arrays of a list; of two of the same name, as json does, of the last."""
    names, write = _WRITTEN[kind]
    for name in names:
        writer.begin(name)
    if kind == 'images':
        writer.add('image_starts', [0])
    count = 0
    for part in _parts(stream.items()):
        places, entries = zip(*part, strict=True)
        writer.add(f'{kind[:-1]}_places', places)
        table = Annotations('', {kind: entries})
        if len(getattr(table, kind)) < len(entries):
            faults = map(FAULTS[kind], entries)
            malformed = [count + place for place, fault in enumerate(faults) if fault]
            writer.add(f'{kind}_malformed', malformed)
        write(table, writer)
        count += len(entries)
        yield
    writer.add(f'{kind[:-1]}_places', [stream.offset])


def _parts(items: Iterator[Any]) -> Iterator[list[Any]]:
    while part := list(islice(items, _CHUNK)):
        yield part


def _write_images(table: Annotations, writer: 'Writer') -> None:
    texts = [json.dumps(entry).encode() for entry in table.images]
    writer.add(
        'image_starts', writer.rows['image_text'] + np.cumsum([len(t) for t in texts], dtype=int)
    )
    writer.add('image_text', np.frombuffer(b''.join(texts), np.uint8))
    writer.add('image_ids', table.image_ids)
    writer.add('sizes', table.sizes)


def _write_annotations(table: Annotations, writer: 'Writer') -> None:
    for name in _NUMBERS:
        writer.add(name, getattr(table, name))


_NUMBERS = (
    *('ids', 'stated_image', 'stated_category', 'boxes', 'malformed', 'stated_areas'),
    *('crowd', 'states_crowd', 'ignored'),
)
_IMAGES = ('image_ids', 'sizes', 'image_starts', 'image_text')
#: Of each list the arrays, and what appends to them the entries of a part.
_WRITTEN = dict(
    images=((*_IMAGES, 'image_places', 'images_malformed'), _write_images),
    annotations=((*_NUMBERS, 'annotation_places', 'annotations_malformed'), _write_annotations),
)
