"""tools/infer.py as a user meets it."""

import csv
import json
import os
import shutil
import sys
import time

import cv2
import numpy as np
import pytest
import turned
import videos
import web
from PIL import Image
from pycocotools.coco import COCO

from mpvit.inference import Detector
from mpvit.inference.images import read_image
from mpvit.inference.outputs import Outputs


@pytest.fixture
def infer(tool, tiny, trained, tmp_path):
    """Run the tool with the trained tiny detector; results go to ``tmp_path / 'out'``."""

    def infer(*words, out=('--out', tmp_path / 'out'), status=0, run=tool):
        return run('infer', tiny[0], trained / 'epoch_2.pth', *words, *out, status=status)

    return infer


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'out'


@pytest.fixture
def photos(toy):
    return sorted((toy / 'val2017').iterdir())


def load(path):
    return json.loads(path.read_text())


def by_file(folder):
    """Detections by the name of the image's file: box, score, category."""
    names = {image['id']: image['file_name'] for image in load(folder / 'images.json')['images']}
    found = {name: [] for name in names.values()}
    for record in load(folder / 'detections.json'):
        assert record['file_name'] == names[record['image_id']]
        row = (*record['bbox'], record['score'], record['category_id'])
        found[record['file_name']].append(row)
    return found


@pytest.mark.parametrize('tta', [False, True])
def test_detections_are_those_of_the_evaluation(tiny_run, infer, trained, toy, out, tmp_path, tta):
    options = [f'test_evaluator.outfile_prefix={tmp_path / "test"}']
    flags = ['--tta'] if tta else []
    tiny_run('test', trained / 'epoch_2.pth', *flags, options=options)
    truth = load(toy / 'annotations' / 'instances_val2017.json')
    names = {image['id']: str(toy / 'val2017' / image['file_name']) for image in truth['images']}
    expected = {name: [] for name in names.values()}
    for record in load(tmp_path / 'test.bbox.json'):
        row = (*record['bbox'], record['score'], record['category_id'])
        expected[names[record['image_id']]].append(row)

    infer(toy / 'val2017', '--threshold', 0, '--batch-size', 4, '--no-pictures', *flags)
    found = by_file(out)
    assert found == expected  # to the last digit
    assert sum(map(len, found.values())) == 600
    assert not (out / 'annotated').exists()


def test_the_files_fit_together(infer, toy, photos, out):
    result = infer(toy / 'val2017', '--threshold', 0.01, '--classes', 'star', 'circle')
    truth = COCO(str(out / 'images.json'))
    results = truth.loadRes(str(out / 'detections.json'))
    assert len(truth.imgs) == 6
    names = {category['id']: category['name'] for category in truth.cats.values()}
    assert names[1] == 'circle'
    assert {names[ann['category_id']] for ann in results.anns.values()} <= {'star', 'circle'}
    assert min(ann['score'] for ann in results.anns.values()) >= 0.01
    with (out / 'detections.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results.anns) > 0
    for row, ann in zip(rows, results.anns.values(), strict=True):
        x, y, width, height = ann['bbox']
        corners = [float(row[name]) for name in ('x1', 'y1', 'x2', 'y2')]
        assert corners == pytest.approx([x, y, x + width, y + height], abs=0.006)
        assert float(row['score']) == pytest.approx(ann['score'], abs=6e-5)
        assert (row['file'], row['class']) == (ann['file_name'], names[ann['category_id']])
    for image, path in zip(truth.imgs.values(), photos, strict=True):
        assert image['file_name'] == str(path)
        with Image.open(out / image['picture']) as picture:
            assert picture.size == (image['width'], image['height'])
            assert picture.format == 'JPEG'
    assert f'6 images or frames, {len(rows)} detections with a score of 0.01' in result.out
    assert f'Results are in {out}' in result.out
    assert '6/6' in result.err  # the progress bar


def test_turned_photographs_are_drawn_upright_with_boxes_in_place(infer, photos, out, tmp_path):
    """The picture differs from the upright photograph only near boxes."""
    upright = Image.open(photos[0])
    (tmp_path / 'in').mkdir()
    turned.save(upright, tmp_path / 'in' / 'a.png', 8)
    upright.save(tmp_path / 'in' / 'b.png')
    infer(tmp_path / 'in', '--threshold', 0, '--classes', 'star')
    boxes, straight = by_file(out).values()
    assert boxes == straight
    pictures = [np.asarray(Image.open(out / 'annotated' / name)) for name in ('a.png', 'b.png')]
    assert (pictures[0] == pictures[1]).all()
    changed = (pictures[0] != np.asarray(upright)).any(-1)
    assert changed.any()
    x, y, width, height, *_ = boxes[0]  # the best one is on top: its lines are all there
    height_all, width_all = changed.shape
    for line in (round(y), round(y + height)):
        if 0 <= line < height_all:
            inside = changed[line - 1 : line + 2, max(round(x), 0) : round(x + width)]
            assert inside.any(0).mean() > 0.9


def test_a_video_keeps_rate_size_and_length(infer, photos, out, tmp_path):
    frames = [read_image(photos[0])[:128, :96]] * 12
    clip = videos.write(tmp_path / 'clip.mp4', frames, 30000 / 1001)
    result = infer(clip, photos[1], '--threshold', 0.01, '--batch-size', 4)
    written, rate = videos.read(out / 'annotated' / 'clip.mp4')
    assert len(written) == 12
    assert written[0].shape == (128, 96, 3)
    assert rate == pytest.approx(30000 / 1001, rel=1e-5)
    images = load(out / 'images.json')['images']
    assert [image.get('frame') for image in images] == [*range(12), None]
    assert images[6]['second'] == pytest.approx(6 * 1001 / 30000, abs=1e-4)
    assert images[6]['picture'] == 'annotated/clip.mp4'
    records = load(out / 'detections.json')
    assert {record.get('frame') for record in records} == {*range(12), None}
    with (out / 'detections.csv').open(newline='') as file:
        assert {row['frame'] for row in csv.DictReader(file)} == {*map(str, range(12)), ''}
    assert '13/13' in result.err


def test_what_cannot_be_read_is_named_at_the_end(infer, photos, out, tmp_path):
    folder = shutil.copytree(photos[0].parent, tmp_path / 'in')
    (folder / photos[1].name).write_bytes(b'no image')
    (folder / 'clip.mp4').write_bytes(b'')
    result = infer(folder, status=1)
    errors = [line for line in result.err.splitlines() if line.startswith('error: ')]
    for error, word in zip(errors, ('2 of 7', photos[1].name, 'clip.mp4'), strict=True):
        assert word in error
    assert len(load(out / 'images.json')['images']) == len(list((out / 'annotated').iterdir())) == 5
    assert isinstance(load(out / 'detections.json'), list)


def test_a_camera_until_it_is_interrupted(infer, out, monkeypatch):
    write = Outputs.add

    class Camera:
        def __init__(self, index):
            assert index == 1

        def isOpened(self):
            return True

        def read(self):
            time.sleep(0.01)
            return True, np.full((96, 128, 3), 90, np.uint8)

        def release(self):
            pass

    def add(self, source, found):
        write(self, source, found)
        if self.count == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(cv2, 'VideoCapture', Camera)
    monkeypatch.setattr(Outputs, 'add', add)
    result = infer(1, '--threshold', 0, status=130)
    monkeypatch.undo()
    assert '3 images or frames, 300 detections' in result.out
    images = load(out / 'images.json')['images']
    assert [(image['file_name'], image['frame']) for image in images] == [
        ('camera 1', number) for number in range(3)
    ]
    assert len(load(out / 'detections.json')) == 300
    written, _ = videos.read(out / 'annotated' / 'camera_1.mp4')
    assert [frame.shape for frame in written] == [(96, 128, 3)] * 3


def test_pictures_of_one_name_are_numbered(infer, photos, out, tmp_path):
    inputs = []
    for folder, suffix in (('a', 'jpg'), ('b', 'JPG'), ('c', 'png'), ('d', 'webp')):
        path = tmp_path / folder / f'x.{suffix}'
        path.parent.mkdir()
        Image.open(photos[0]).save(path)
        inputs.append(path)
    (tmp_path / 'd' / 'deep').mkdir()
    shutil.copy(inputs[0], tmp_path / 'd' / 'deep' / 'y.jpg')
    infer(*inputs[:3], tmp_path / 'd')
    names = [image['picture'] for image in load(out / 'images.json')['images']]
    assert names == [
        f'annotated/{n}' for n in ('x.jpg', 'x_2.jpg', 'x.png', 'x_2.png', 'deep/y.jpg')
    ]
    assert all((out / name).is_file() for name in names)


def test_names_in_another_encoding(infer, photos, out, tmp_path):
    (tmp_path / 'in').mkdir()
    name = os.fsdecode(b'caf\xe9 \xc3\xa9.jpg')
    shutil.copy(photos[0], tmp_path / 'in' / name)
    infer(tmp_path / 'in', '--threshold', 0)
    assert load(out / 'images.json')['images'][0]['file_name'] == str(tmp_path / 'in' / name)
    assert len(load(out / 'detections.json')) == 100
    assert (out / 'annotated' / name).is_file()


def test_without_supervision(infer, photos, out, monkeypatch):
    monkeypatch.setitem(sys.modules, 'supervision', None)
    result = infer(photos[0], status=1)
    assert 'supervision' in result.err
    assert not out.exists()
    infer(photos[0], '--no-pictures')
    assert (out / 'detections.json').is_file()


def test_results_of_earlier_runs_stay(infer, tiny, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = []
    for _ in range(2):
        result = infer(photos[0], '--no-pictures', out=())
        folders.append(result.out.split('Results are in ')[1].strip())
    assert folders == ['work_dirs/tiny/infer', 'work_dirs/tiny/infer_2']
    assert all((tmp_path / folder / 'detections.json').is_file() for folder in folders)


def test_addresses(infer, photos, out, tmp_path):
    videos.write(tmp_path / 'clip.mp4', [read_image(photos[0])[:96, :96]] * 3)
    shutil.copy(photos[0], tmp_path / 'a b.jpg')
    with web.serving(tmp_path) as base:
        words = [f'{base}/a%20b.jpg?size=1', f'{base}/clip.mp4', f'{base}/none.jpg', photos[0]]
        result = infer(*words, '--threshold', 0, status=1)
    assert f'error: {base}/none.jpg cannot be downloaded: HTTP 404 File not found' in result.err
    images = load(out / 'images.json')['images']
    assert [image['picture'] for image in images] == [
        'annotated/a b.jpg',
        *['annotated/clip.mp4'] * 3,
        f'annotated/{photos[0].name}',
    ]
    found = by_file(out)
    assert found[words[0]] == found[str(photos[0])]


def test_a_full_gpu_leaves_what_was_done(infer, photos, out, monkeypatch):
    plain, calls = Detector._forward, []

    def once(self, *arguments):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total')
        return plain(self, *arguments)

    monkeypatch.setattr(Detector, '_forward', once)
    result = infer(photos[0].parent, status=1)
    assert '--batch-size' in result.err.splitlines()[-1]
    assert len(load(out / 'images.json')['images']) == 1


@pytest.mark.parametrize('place', ['in its work folder', 'alone'])
def test_a_checkpoint_is_enough(place, tool, trained, toy, tmp_path):
    """Without a config: classes and pipeline are those of the training."""
    checkpoint = trained / 'epoch_2.pth'
    if place == 'alone':
        checkpoint = shutil.copy(checkpoint, tmp_path)
    photo = sorted((toy / 'val2017').iterdir())[0]
    words = ('--no-pictures', '--threshold', 0)
    tool('infer', *words, checkpoint, photo, '--out', tmp_path / 'short')
    tool('infer', trained / 'tiny.py', checkpoint, photo, *words, '--out', tmp_path / 'long')
    short, long = ((tmp_path / name / 'detections.csv').read_text() for name in ('short', 'long'))
    assert 'circle' in short
    assert short == long
