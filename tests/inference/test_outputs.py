"""The folder of results, apart from what the tests of the tool see of it."""

import gc
import json
import os
import signal
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from file_limits import limited_files

from mpvit.errors import UserError
from mpvit.files import locks
from mpvit.inference import outputs
from mpvit.inference.detections import Detections
from mpvit.inference.outputs import Outputs
from mpvit.inference.sources import Source
from mpvit.inference.video import Moment, frames

PIXELS = np.zeros((32, 48, 3), np.uint8)
BOX = np.array([[1, 2, 30, 20]], np.float32)
NAMES = ['detections.csv', 'detections.json', 'images.json']


def found(count=1):
    detections = np.repeat(BOX, count, 0), np.ones(count, np.float32), np.zeros(count, int)
    return Detections(*detections, ('a',), (48, 32))


def source(name, frame=None, start=None):
    start = frame if start is None else start
    moment = None if frame is None else Moment(frame, 3, Fraction(5), start, 1, Fraction(1, 5))
    return Source(name, name, PIXELS, moment)


def fill(folder, error):
    with Outputs(folder, ('a',), {}, pictures=True, failed=print) as outputs:
        outputs.add(source('x.png'), found())
        outputs.add(source('v.avi', 0), found())
        outputs.add(source('v.avi', 1), found())
        assert [path.name for path in folder.iterdir() if path.name[0] != '.'] == ['annotated']
        raise error


@pytest.mark.parametrize('error', [KeyboardInterrupt(), SystemExit(143), UserError('lost')])
def test_what_was_found_until_an_error_is_whole(tmp_path, error):
    with pytest.raises(type(error)):
        fill(tmp_path, error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['annotated', *NAMES]
    assert len(json.loads((tmp_path / 'detections.json').read_text())) == 3
    assert len(json.loads((tmp_path / 'images.json').read_text())['images']) == 3
    assert len((tmp_path / 'detections.csv').read_text().splitlines()) == 4
    assert len(list(frames(tmp_path / 'annotated' / 'v.mp4'))) == 2
    assert sorted(os.listdir(tmp_path / 'annotated')) == ['v.mp4', 'x.png']


@pytest.mark.parametrize('start', [2**40, 2**63])  # refused at the end, and at once
def test_a_video_that_cannot_be_written_does_not_end_the_run(tmp_path, start):
    failed = []
    with Outputs(tmp_path, ('a',), {}, pictures=True, failed=failed.append) as outputs:
        for name in ('v.avi', 'w.avi'):
            outputs.add(source(name, 0), found())
            outputs.add(source(name, 1, start), found())
            outputs.add(source(name, 2, start + 1), found())
            outputs.add(source(f'{name}.png'), found())
        outputs.add(source('x.avi', 1), found())  # whose first frame could not be read
        outputs.add(source('x.avi', 2), found())
    assert [str(error).split(' cannot')[0] for error in failed] == [
        str(tmp_path / 'annotated' / name) for name in ('v.mp4', 'w.mp4')
    ]
    assert len(json.loads((tmp_path / 'detections.json').read_text())) == 10
    written = set(os.listdir(tmp_path / 'annotated')) - {'v.mp4', 'w.mp4'}
    assert written == {'v.avi.png', 'w.avi.png', 'x.mp4'}
    assert len(list(frames(tmp_path / 'annotated' / 'x.mp4'))) == 2


def test_a_kill_leaves_no_half_of_a_file(tmp_path):
    gc.collect()  # encoders, which a child that lacks their threads could not free
    child = os.fork()
    if child == 0:
        try:
            with Outputs(tmp_path, ('a',), {}, pictures=False, failed=print) as outputs:
                outputs.add(source('x.png'), found(1000))
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    assert all(path.name.startswith('.mpvit-') for path in tmp_path.iterdir())


def test_a_full_disk_names_the_file_and_leaves_no_half_of_it(tmp_path):
    def write():
        with Outputs(tmp_path, ('a',), {}, pictures=False, failed=print) as outputs:
            for _ in range(10):
                outputs.add(source('x.png'), found(1000))

    with limited_files(100_000), pytest.raises(UserError, match=r'detections\.json .*too large'):
        write()
    assert not (tmp_path / 'detections.json').exists()
    assert not list(tmp_path.glob('.mpvit-*'))


def test_a_full_disk_ends_the_run_also_within_a_video(tmp_path):
    failed = []

    def write():
        noise = np.random.default_rng(0)
        with Outputs(tmp_path, ('a',), {}, pictures=True, failed=failed.append) as outputs:
            for frame in range(200):
                pixels = noise.integers(0, 255, PIXELS.shape, np.uint8)
                outputs.add(replace(source('v.avi', frame), image=pixels), found())

    with limited_files(50_000), pytest.raises((UserError, OSError), match='too large'):
        write()
    assert not failed


def test_a_folder_that_cannot_be_written_stays_as_it_was(tmp_path):
    (tmp_path / 'detections.csv').mkdir()
    with pytest.raises(UserError, match=r'detections\.csv cannot be written .*folder'):
        Outputs(tmp_path, ('a',), {}, pictures=False, failed=print)
    with pytest.raises(TypeError):  # settings that JSON cannot hold
        Outputs(tmp_path, ('a',), dict(size=object()), pictures=False, failed=print)
    assert os.listdir(tmp_path) == ['detections.csv']


def test_one_run_writes_into_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, '_PATIENCE', 0)
    with Outputs(tmp_path / 'out', ('a',), {}, pictures=False, failed=print):
        with pytest.raises(UserError, match='is in use'):
            Outputs(tmp_path / 'out', ('a',), {}, pictures=False, failed=print)
    with pytest.raises(UserError, match='has results already'):
        Outputs(tmp_path / 'out', ('a',), {}, pictures=False, failed=print)
    model = SimpleNamespace(cfg=SimpleNamespace(work_dir=str(tmp_path)))
    places = [outputs._free_folder(model).name for _ in range(2)]
    assert places == ['infer', 'infer_2']  # though neither has written yet
    assert sorted(path.name for path in tmp_path.iterdir()) == ['infer', 'infer_2', 'out']
