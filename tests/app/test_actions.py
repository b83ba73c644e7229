import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from app_checkpoint import CLASSES
from mmdet.apis import inference_detector
from PIL import Image

from mpvit.app import detectors as module
from mpvit.app.actions import Actions, _small, read_picture
from mpvit.app.detectors import LOWEST_SCORE, Detectors
from mpvit.app.sources import Source, choose_sources, find_pictures
from mpvit.errors import UserError
from mpvit.inference import Detector, load_detector
from mpvit.inference.queries import record

NAME = 'tiny/epoch_1.pth'


@pytest.fixture(scope='module')
def actions(work_dirs, toy, tmp_path_factory):
    pictures = find_pictures(toy / 'val2017')
    folder = tmp_path_factory.mktemp('shown')
    return Actions(Detectors(choose_sources(None, None, work_dirs), 'cpu'), pictures, folder)


@pytest.fixture(scope='module')
def result(actions):
    return actions.detect(actions.example(0), NAME)


def test_detections_are_those_of_mmdet(actions, result, work_dirs):
    model = load_detector(work_dirs / 'tiny/tiny.py', work_dirs / NAME)
    expected = inference_detector(model, str(result.path)).pred_instances
    kept = int((expected.scores >= LOWEST_SCORE).sum())
    assert kept > 20
    found = result.detections
    np.testing.assert_allclose(found.scores, expected.scores[:kept], atol=1e-6)
    np.testing.assert_allclose(found.boxes, expected.bboxes[:kept], atol=1e-4)
    np.testing.assert_array_equal(found.labels, expected.labels[:kept])
    assert found.classes == tuple(CLASSES)
    assert result.layers == 2
    assert Path(result.shown).parent == actions.folder


@pytest.mark.parametrize('layer', [0, 1])
def test_samples_are_those_of_the_layer(actions, result, work_dirs, layer):
    model = load_detector(work_dirs / 'tiny/tiny.py', work_dirs / NAME)
    expected = record(model, read_picture(result.path), layer)
    looked = actions.select(result, 3, layer)
    assert (looked.selected, looked.points.layer) == (3, layer)
    np.testing.assert_allclose(looked.points.locations, expected.locations, atol=1e-3)
    np.testing.assert_allclose(looked.points.boxes[3], result.detections.boxes[3], atol=1e-3)


def test_another_detection_of_the_same_layer_needs_no_inference(actions, result, monkeypatch):
    looked = actions.select(result, 3, 1)
    monkeypatch.setattr(module, 'record', None)
    again = actions.select(looked, 4, 1)
    assert again.selected == 4
    assert again.points is looked.points
    assert actions.select(again, None, 1).selected is None


def test_detector_that_does_not_tell_what_it_samples(actions, result):
    """An exported one, say: its detections can be clicked all the same."""
    exported = replace(result, layers=0, detections=replace(result.detections, queries=None))
    looked = actions.select(exported, 3, 0)
    assert (looked.selected, looked.points) == (3, None)


def test_old_copies_are_deleted(actions, result):
    old = Path(result.shown)
    others = set(actions.folder.iterdir()) - {old}
    content = old.read_bytes()
    os.utime(old, (0, 0))
    new = actions.detect(result.path, NAME)
    assert set(actions.folder.iterdir()) == {*others, Path(new.shown)}
    old.write_bytes(content)


@pytest.mark.parametrize('index', [-1, 10**6, '0', None, 1.5, [0]])
def test_numbers_that_the_page_never_sends(actions, result, index):
    with pytest.raises(UserError, match='there is no picture'):
        actions.example(index)
    if index is not None:
        with pytest.raises(UserError, match='there is no detection'):
            actions.select(result, index, 0)


def test_layer_that_is_not_there(actions, result):
    with pytest.raises(UserError, match='layer 7'):
        actions.select(result, 0, 7)


def test_checkpoints_that_cannot_be_used(work_dirs, tmp_path):
    (tmp_path / 'half.pth').write_bytes((work_dirs / NAME).read_bytes()[:5000])
    config, names = str(work_dirs / 'tiny/tiny.py'), ('half.pth', 'gone.pth')
    others = Detectors([Source(name, config, str(tmp_path / name)) for name in names], 'cpu')
    for name, message in zip(names, ('damaged', 'not there'), strict=True):
        with pytest.raises(UserError, match=message):
            others.load(name)


def test_detectors_run_one_at_a_time(actions, result, monkeypatch):
    running, most = [], []

    def slow(self, pixels):
        running.append(1)
        most.append(len(running))
        time.sleep(0.05)
        running.pop()
        return result.detections

    monkeypatch.setattr(Detector, '__call__', slow)
    arguments = (NAME, read_picture(result.path))
    threads = [threading.Thread(target=actions.detectors.detect, args=arguments) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_full_memory_is_said_in_terms_of_the_page(actions, result, work_dirs, monkeypatch):
    def allocate(*arguments):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has')

    detectors = Detectors(choose_sources(None, None, work_dirs), 'cpu')
    detectors.load(NAME)
    monkeypatch.setattr(module, 'record', allocate)
    pixels = read_picture(result.path)
    with pytest.raises(UserError, match='20.00 MiB.*picture'):
        detectors.look(NAME, pixels, 0)
    monkeypatch.setattr(Detector, '_forward', allocate)
    with pytest.raises(UserError, match='20.00 MiB.*picture'):
        detectors.detect(NAME, pixels)


def test_a_new_file_of_the_same_name_is_loaded(work_dirs, monkeypatch):
    loads = []

    def load(*arguments, **settings):
        loads.append(arguments)
        return None

    monkeypatch.setattr(module, 'Detector', load)
    detectors = Detectors(choose_sources(None, None, work_dirs), 'cpu')
    for _ in range(2):
        detectors.load(NAME)
    (work_dirs / NAME).touch()
    detectors.load(NAME)
    assert len(loads) == 2


def test_pictures_have_kinds_and_pixels_of_their_own_limits(tmp_path):
    """Narrower than those of files that users name; the kind is told by the content."""
    path, large = tmp_path / 'photo.png', Image.new('1', (10_000, 5_001))
    Image.new('RGB', (8, 6)).save(path, 'TIFF')
    assert read_picture(path).size == (8, 6)
    for picture, kind, message in (
        (Image.new('RGB', (8, 6)), 'JPEG2000', 'no image of the kinds'),
        (large, 'PNG', 'more than 50,000,000'),
    ):
        picture.save(path, kind)
        with pytest.raises(UserError, match=rf'^photo\.png .*{message}'):
            read_picture(path)
    assert _small(large, 1600).size == (1600, 800)
    assert large.size == (10_000, 5_001)  # which is not changed


def test_pictures_that_cannot_be_read_are_not_offered(actions, toy, tmp_path):
    (tmp_path / 'broken.png').write_text('text')
    pictures = [tmp_path / 'broken.png', *find_pictures(toy / 'val2017')]
    offered = Actions(actions.detectors, pictures, tmp_path).examples
    assert [path for path, _ in offered] == pictures[1:]
