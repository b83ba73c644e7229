"""Files that processes share give what other files give, and nothing else is left behind."""

import copy
import gc
import json
import multiprocessing
import os
import pickle
import random
import time
from collections import Counter
from itertools import count

import numpy as np
import pytest
from damage import damage, written

from mpvit.datasets import annotations, shared
from mpvit.datasets.annotations import forget, read_annotations
from mpvit.datasets.check import Split, inspect_dataset
from mpvit.datasets.shared import VARIABLE, reading, writing
from mpvit.errors import UserError

COLUMNS = 'image_ids sizes ids boxes malformed stated_areas areas crowd states_crowd ignored'
COLUMNS += ' image_row category_row has_area by_image starts listed usable trained'
ODD = (
    dict(iscrowd=1),
    dict(ignore=1),
    dict(ignore=1, iscrowd=1),
    dict(id='7'),
    dict(image_id='100'),
    dict(image_id=7),
    dict(category_id=99),
    dict(area=None),
    dict(area=True),
    dict(bbox=[True, 2, 3, 4]),
    dict(bbox=None),
    dict(bbox=[1, 2, 3]),
    dict(bbox=[-5, -5, 400.5, 300]),
    dict(bbox=[3, 4, 0.5, 1e-3]),
    dict(segmentation=[[1, 2, 3, 4, 5.5, 6]]),
    dict(segmentation=dict(size=[48, 64], counts='é€')),
    dict(caption='😀 é "]}'),
)


@pytest.fixture(autouse=True)
def sharing(tmp_path, monkeypatch):
    """All files are shared, in a folder of this test."""
    forget()
    monkeypatch.setattr(shared, 'LEAST_BYTES', 1)
    monkeypatch.setenv(VARIABLE, str(tmp_path / 'arrays'))
    monkeypatch.setattr(writing, '_CHUNK', 7)
    monkeypatch.setattr(os, 'fsync', lambda descriptor: None)
    yield tmp_path / 'arrays'
    forget()


@pytest.fixture
def content(clean_dataset):
    return json.loads((clean_dataset / 'train.json').read_text())


@pytest.fixture
def write(tmp_path):
    """Writes a file as if it were old, never twice at the same time."""
    times = count(10**9)

    def written_as(data, name='truth.json'):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        os.utime(path, (0, next(times)))
        return path

    return written_as


def both(path, monkeypatch, read=read_annotations, **options):
    """What a shared file gives, and what the same file gives that is not."""
    found = []
    # mmengine would look for all garbage of the tests
    monkeypatch.setattr(gc, 'collect', lambda: 0)
    for setting in (None, 'off'):
        forget()
        with monkeypatch.context() as patch:
            if setting:
                patch.setenv(VARIABLE, setting)
            try:
                found.append(read(path, **options))
            except UserError as error:
                found.append(str(error))
    return found


def compare(one, other):
    assert one.shared
    assert not other.shared
    assert repr(list(one.faults())) == repr(list(other.faults()))
    for kind in ('images', 'annotations', 'categories'):
        assert repr(list(getattr(one, kind))) == repr(list(getattr(other, kind)))
        everything = list(one.content.get(kind, ['missing']))
        assert repr(everything) == repr(other.content.get(kind, ['missing']))
    for name in COLUMNS.split():
        values = getattr(one, name), getattr(other, name)
        assert values[0].dtype == values[1].dtype
        np.testing.assert_array_equal(*values, name)
    assert one.ids_repeat == other.ids_repeat
    assert one.starts_with_mark == other.starts_with_mark
    for options in (dict(), dict(classes=('cat', 'owl')), dict(training=False)):
        filters = dict(filter_empty_gt=True, min_size=40)
        for values in zip(
            *(t.used(filter_cfg=filters, **options) for t in (one, other)), strict=True
        ):
            np.testing.assert_array_equal(*values)


@pytest.mark.filterwarnings('error')
def test_any_file_gives_the_same_either_way(content, write, monkeypatch):
    rng = random.Random(1)
    outcomes = Counter()
    for number in range(120):
        damaged = copy.deepcopy(content)
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            damage(damaged, rng)
        data = written(damaged, rng)
        one, other = both(write(data), monkeypatch, strict=False, unlabelled=True)
        if isinstance(other, str):
            assert isinstance(one, str), number
            assert one[:40] == other[:40]
            outcomes['refused'] += 1
        else:
            compare(one, other)
            outcomes['whole' if not list(other.faults()) else 'with faults'] += 1
    assert min(outcomes[kind] for kind in ('refused', 'whole', 'with faults')) > 5, outcomes


def odd_file(content):
    for place, change in enumerate(ODD):
        content['annotations'][2 * place].update(change)
    content['images'][3].update(file_name='é€ 😀.png', width=64.0, more=[1, {}])
    content['images'].append(dict(content['images'][5], id='x'))
    content['images'].reverse()
    random.Random(0).shuffle(content['annotations'])
    return dict(reversed(content.items()), info=dict(year=2026))


def test_odd_entries_give_the_same_either_way(content, write, monkeypatch):
    odd = odd_file(content)
    for data in (
        odd,
        json.dumps(odd, indent=1, ensure_ascii=False).encode(),
        b'\xef\xbb\xbf' + json.dumps(odd).encode(),
    ):
        compare(*both(write(data), monkeypatch, strict=False))
    one, other = both(write(odd), monkeypatch, strict=False)
    assert one.whole().content == other.content == odd
    rows = np.array([3, 1, 7])
    assert list(one.entries(rows)) == other.entries(rows)
    assert list(one.images[2:9:3]) == other.images[2:9:3]
    for empty in (dict(odd, annotations=[]), dict(odd, images=[]), dict(odd, categories=[])):
        compare(*both(write(empty), monkeypatch, strict=False))
    del odd['annotations']
    compare(*both(write(odd), monkeypatch, strict=False, unlabelled=True))


@pytest.mark.parametrize('masks', [False, True])
@pytest.mark.parametrize('test_mode', [False, True])
def test_a_dataset_gives_the_same_records_either_way(
    content, write, monkeypatch, build_dataset, masks, test_mode
):
    content = odd_file(content)
    content['annotations'] = [
        a for a in content['annotations'] if type(a['id']) is type(a['image_id']) is int
    ]
    content['images'] = [image for image in content['images'] if image['id'] != 'x']
    for annotation in content['annotations']:
        if not isinstance(annotation['bbox'], list) or len(annotation['bbox']) != 4:
            annotation['bbox'] = [1, 2, 3, 4.5]
        annotation['bbox'] = [float(n) for n in annotation['bbox']]
    path = write(content)
    for classes in (('cat', 'dog', 'owl'), ('dog',)):
        for filters in (None, dict(filter_empty_gt=True, min_size=32)):
            options = dict(filter_cfg=filters, masks=masks, test_mode=test_mode)

            def build(path, classes=classes, options=options):
                return build_dataset(path, 'images', classes, **options)

            one, other = both(path, monkeypatch, build)
            assert len(one) == len(other) > 0
            assert one.box_count == other.box_count > 0
            for index in (*range(len(one)), -1):
                record = one.get_data_info(index)
                assert repr(record) == repr(other.get_data_info(index))
                assert one.get_cat_ids(index) == other.get_cat_ids(index)
            has_mask = any(
                'mask' in i for n in range(len(one)) for i in one.get_data_info(n)['instances']
            )
            assert has_mask == masks


def test_parts_of_a_dataset_and_copies_give_the_same(content, write, monkeypatch, build_dataset):
    def build(path, **options):
        return build_dataset(path, '', ('cat', 'dog', 'owl'), **options)

    def records(dataset):
        return [dataset.get_data_info(index) for index in range(len(dataset))]

    path = write(content)
    for indices in (5, -3, [4, 1, 1]):
        one, other = both(path, monkeypatch, build, indices=indices)
        assert records(one) == records(other)
        one, other = both(path, monkeypatch, build)
        assert records(one.get_subset(indices)) == records(other.get_subset(indices))
        one.get_subset_(indices)
        other.get_subset_(indices)
        assert records(one) == records(other)
    one, other = both(path, monkeypatch, build)
    sent = pickle.dumps(one)  # to a worker that is not forked
    assert len(sent) < 10_000
    assert records(pickle.loads(sent)) == records(copy.deepcopy(one)) == records(other)


def test_the_check_finds_the_same_either_way(content, write, monkeypatch, clean_dataset):
    path = write(odd_file(content))

    def inspect(path):
        split = Split(path, clean_dataset / 'train')
        return inspect_dataset(split, classes=('cat', 'dog', 'owl'), workers=1)

    one, other = both(path, monkeypatch, inspect)
    assert one.tables['train'].shared
    assert one.problems == other.problems
    assert len({problem.code for problem in one.problems}) > 10
    assert one.used == other.used


def test_arrays_are_written_once_and_anew_for_another_file(content, write, sharing, monkeypatch):
    written_folders = []
    write_arrays = shared.write_arrays
    monkeypatch.setattr(
        shared, 'write_arrays', lambda *a: (written_folders.append(a[1]), write_arrays(*a))
    )
    path = write(content)
    for _ in range(3):
        forget()
        assert read_annotations(path).names == ['cat', 'dog', 'owl']
    assert len(written_folders) == 1
    data = path.read_bytes().replace(b'"cat"', b'"cow"')  # as many bytes
    path.write_bytes(data)
    forget()
    assert read_annotations(path).names == ['cow', 'dog', 'owl']
    assert len(set(written_folders)) == 2
    other = [name for name in os.listdir(sharing) if name.startswith('.mpvit-')]
    assert other == []


@pytest.mark.parametrize('damaged', ['header.json', 'boxes', 'annotation_places'])
@pytest.mark.parametrize('data', [None, b'', b'{"version": 1}', b'x' * 200])
def test_damaged_arrays_are_written_anew(content, write, sharing, damaged, data):
    path = write(content)
    expected = read_annotations(path).boxes.copy()
    (place,) = sharing.glob('[0-9a-f]*')
    (place / damaged).unlink()
    if data is not None:
        (place / damaged).write_bytes(data)
    forget()
    np.testing.assert_array_equal(read_annotations(path).boxes, expected)
    assert (place / damaged).stat().st_size > 200


def test_a_file_that_is_changed_in_use_is_not_read_on(content, write):
    path = write(content)
    found = read_annotations(path)
    assert found.annotations[4]['id'] == 5
    content['annotations'].reverse()
    write(content)
    with pytest.raises(UserError, match='changed'):
        found.annotations[4]
    assert found.images[1]['id'] == 101  # of which there is a copy
    assert found.boxes[4, 0] == 11


def test_a_file_that_is_changed_while_it_is_read_is_refused(content, write, monkeypatch, sharing):
    path = write(content)
    stream = writing.JsonStream

    class Changing(stream):
        def peek(self):
            os.utime(path, (5, 5))
            return super().peek()

    monkeypatch.setattr(writing, 'JsonStream', Changing)
    with pytest.raises(UserError, match='changed'):
        read_annotations(path)
    assert not list(sharing.glob('[0-9a-f]*'))


@pytest.mark.parametrize('obstacle', ['off', 'file', 'full'])
def test_without_a_place_for_arrays_files_are_read_as_before(
    content, write, obstacle, sharing, monkeypatch, capsys
):
    if obstacle == 'off':
        monkeypatch.setenv(VARIABLE, 'off')
    elif obstacle == 'file':
        sharing.write_text('')
    else:

        def full(writer, name, rows):
            raise OSError(28, 'No space left on device')

        monkeypatch.setattr(writing.Writer, 'add', full)
    assert not read_annotations(write(content)).shared
    assert ('No space' in capsys.readouterr().err) == (obstacle == 'full')
    assert not sharing.is_dir() or not [n for n in os.listdir(sharing) if not n.endswith('.lock')]


def test_small_files_are_not_shared(content, write, sharing, monkeypatch):
    monkeypatch.undo()
    assert not read_annotations(write(content)).shared
    assert not sharing.exists()


def test_old_arrays_and_what_kills_left_are_removed(content, write, sharing):
    for name, days in (
        ('a' * 32, 31),
        ('b' * 32, 29),
        ('.mpvit-x', 2),
        ('.mpvit-y', 0),
        ('mine', 99),
    ):
        (sharing / name).mkdir(parents=True)
        (sharing / name / 'header.json').write_text('{}')
        for path in (sharing / name / 'header.json', sharing / name):
            os.utime(path, (time.time() - days * 86400,) * 2)
    read_annotations(write(content))
    left = {name for name in os.listdir(sharing) if len(name) < 32 or len(set(name)) == 1}
    assert left == {'b' * 32, '.mpvit-y', 'mine'}


def _read(path, folder, counts):
    os.environ[VARIABLE] = folder
    shared.LEAST_BYTES = 1
    write_arrays = shared.write_arrays

    def counted(*arguments):
        counts.put(1)
        write_arrays(*arguments)

    shared.write_arrays = counted
    assert len(read_annotations(path).annotations) == 36


def test_of_several_processes_one_writes(content, write, sharing):
    path, context = write(content), multiprocessing.get_context('fork')
    counts = context.Queue()
    processes = [context.Process(target=_read, args=(path, str(sharing), counts)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert counts.get(timeout=10) == 1
    assert counts.empty()


def test_arrays_are_no_pickles(content, write, sharing):
    """And their rows are mapped, not read."""
    found = read_annotations(write(content))
    (place,) = sharing.glob('[0-9a-f]*')
    assert {path.name for path in place.iterdir()} == {'header.json', *reading.kept()}
    json.loads((place / 'header.json').read_text())
    for name in ('boxes', 'ids', 'image_row', 'has_area'):
        array = getattr(found, name)
        assert not array.flags.writeable
        assert (place / name).read_bytes() == array.tobytes()
    assert annotations._kept
