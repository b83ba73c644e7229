"""Detector: images in any form, in batches, in tiles, in constant memory."""

import itertools

import numpy as np
import pytest
import torch
import videos
from mmdet.apis import inference_detector
from mmengine.dataset import Compose
from PIL import Image
from torchvision.ops import batched_nms

from mpvit.config.presets import tta_pipeline
from mpvit.config.reading import load_config
from mpvit.errors import UserError
from mpvit.inference import Detector
from mpvit.inference.images import read_image
from mpvit.inference.loading import image_pipeline

FIELDS = ('boxes', 'scores', 'labels')


def assert_same(found, expected, tolerance=1e-5):
    assert found.size == expected.size
    for name in FIELDS:
        a, b = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)


def test_detections_are_those_of_mmdets_own_function(detector, photos):
    for path in photos[:3]:
        found = detector(path)
        expected = inference_detector(detector.model, str(path)).pred_instances
        assert torch.equal(torch.from_numpy(found.boxes), expected.bboxes)
        assert torch.equal(torch.from_numpy(found.scores), expected.scores)
        assert torch.equal(torch.from_numpy(found.labels), expected.labels)
        assert len(found) == 100
        assert found.size == Image.open(path).size
        assert found.names[0] == detector.classes[found.labels[0]]
        assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize('name', ['mpvit_s_ddetr_50e', 'r50_ddetr_50e', 'mpvit_t_ddetr_toy'])
@pytest.mark.parametrize('tta', [False, True])
def test_input_is_that_of_the_evaluation(root, photos, name, tta):
    """Pixel by pixel, for the configs whose detectors are too large to run here."""
    cfg = load_config(root / 'configs' / 'deformable_detr' / f'{name}.py')
    steps = cfg.test_dataloader.dataset.pipeline
    pipeline = image_pipeline(cfg, tta)
    evaluated = Compose(tta_pipeline(cfg, steps) if tta else steps)
    for path in photos:
        expected = evaluated(dict(img_path=str(path), img_id=0))
        found = pipeline(dict(img=read_image(path), img_id=0))
        views = [x['inputs'] if tta else [x['inputs']] for x in (found, expected)]
        assert all(torch.equal(a, b) for a, b in zip(*views, strict=True))


def test_every_form_of_an_image_gives_the_same(detector, photos):
    expected = detector(photos[0])
    image = Image.open(photos[0])
    rgb = np.array(image)
    for given in (str(photos[0]), image, rgb[..., ::-1], torch.from_numpy(rgb).permute(2, 0, 1)):
        assert_same(detector(given), expected, 0)
        assert len(list(detector.predict(given))) == 1  # alone, not in a list
    assert np.abs(detector(rgb).boxes - expected.boxes).max() > 0.01  # RGB is not BGR


def test_batches_change_nothing(make, detector, photos):
    expected = [detector(path) for path in photos]
    found = list(make(batch_size=4).predict(photos[0].parent))
    assert [source.path for source, _ in found] == [str(path) for path in photos]
    for (source, detections), path, alone in zip(found, photos, expected, strict=True):
        assert_same(detections, alone, 2e-4)
        assert (source.image == read_image(path)).all()


def test_threshold_and_classes(make, detector, photos):
    every = detector(photos[0])
    limit = float(every.scores[20])
    some = make(threshold=limit)(photos[0])
    assert len(some) == 21
    assert_same(some, every[:21], 0)
    chosen = make(classes=['star', 'circle'])(photos[0])
    assert_same(chosen, every[[name in ('star', 'circle') for name in every.names]], 0)
    assert 0 < len(chosen) < len(every)


def test_inputs_of_all_kinds_mixed(make, photos, tmp_path):
    frames = [read_image(photos[0])] * 5
    clip = videos.write(tmp_path / 'clip.avi', frames)
    inputs = [str(photos[1]), frames[0], Image.open(photos[2]), clip, f'{photos[0].parent}/*6.jpg']
    found = list(make(batch_size=3).predict(inputs))
    names = [source.path for source, _ in found]
    assert names == [inputs[0], 'image 1', 'image 2', *[str(clip)] * 5, str(photos[5])]
    numbers = [source.moment and source.moment.frame for source, _ in found]
    assert numbers == [None, None, None, 0, 1, 2, 3, 4, None]
    assert all(detections.size == source.image.shape[1::-1] for source, detections in found)


def test_images_are_read_only_a_little_ahead(make, photos):
    taken = itertools.count()
    images = (read_image(photos[0]) for _ in taken)  # without an end
    found = make(batch_size=2).predict(images)
    for _ in range(6):
        next(found)
    found.close()
    assert next(taken) <= 6 + 2 + 4 + 1


def test_unreadable_inputs(detector, photos, tmp_path):
    (tmp_path / 'bad.jpg').write_bytes(b'no image')
    (tmp_path / 'bad.mp4').write_bytes(b'no video')
    inputs = [photos[0], tmp_path / 'bad.jpg', tmp_path / 'bad.mp4', np.zeros(3), photos[1]]
    failed = []
    found = [source.path for source, _ in detector.predict(inputs, failed.append)]
    assert found == [str(photos[0]), str(photos[1])]
    for error, name in zip(failed, ('bad.jpg', 'bad.mp4', 'image 3'), strict=True):
        assert name in str(error)
    results = detector.predict(inputs)
    next(results)
    with pytest.raises(UserError, match='bad.jpg'):
        next(results)


def test_images_of_strange_shapes(detector):
    for size in ((1, 1), (3, 200), (200, 3)):
        found = detector(np.zeros((*size, 3), np.uint8))
        assert found.size == size[::-1]
        assert len(found) == 100
    line = np.zeros((1, 900, 3), np.uint8)  # no pixel high once it is resized
    with pytest.raises(UserError, match='900 x 1'):
        detector(line)
    failed = []
    found = list(detector.predict([line, line[:, :200].repeat(3, 0)], failed.append))
    assert len(found) == 1
    assert 'image 0' in str(failed[0])


def test_tiles_with_the_mirror_image(make, photos):
    pixels = read_image(photos[0])[:90, :90, ::-1]
    found, whole = make(tile=100, tta=True)(pixels), make(tta=True)(pixels)
    np.testing.assert_allclose(found.scores[0], whole.scores[0], rtol=1e-5)
    np.testing.assert_allclose(found.boxes[0], whole.boxes[0].clip(0, 90), atol=1e-3)
    assert not set(found.scores) <= set(make(tile=100)(pixels).scores)


@pytest.mark.parametrize('batch_size', [1, 3])
def test_tiles(make, photos, batch_size):
    """Against each tile by itself, put together with torchvision's suppression."""
    side, overlap = 100, 20
    image = np.tile(read_image(photos[0]), (3, 3, 1))[:180, : 2 * side - overlap]
    alone, parts = make(threshold=0.05), []
    for y, x in itertools.product((0, side - overlap), repeat=2):
        found = alone(image[y : y + side, x : x + side, ::-1])
        parts.append((found.boxes.clip(0, side) + np.tile([x, y], 2), found.scores, found.labels))
    boxes, scores, labels = (
        torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True)
    )
    kept = batched_nms(boxes.float(), scores, labels, 0.5)
    found = make(threshold=0.05, tile=side, batch_size=batch_size)(image[..., ::-1])
    assert found.size == image.shape[1::-1]
    assert 4 < len(found) == len(kept) < len(boxes)
    np.testing.assert_allclose(found.scores, scores[kept], atol=1e-5)
    np.testing.assert_allclose(found.boxes, boxes[kept], atol=1e-2)
    assert (found.labels == labels[kept].numpy()).all()


def test_nothing_found(make, photos):
    for settings in (dict(), dict(tile=100), dict(tta=True)):
        found = make(threshold=1.0, **settings)(photos[0])
        assert len(found) == 0
        assert found.boxes.shape == (0, 4)
        assert found.boxes.dtype == found.scores.dtype == np.float32
        assert found.labels.dtype == np.int64
        assert found.size == Image.open(photos[0]).size


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(classes=['Cirle']), "'Cirle'; did you mean circle"),
        (dict(classes=['zebra']), "'zebra'.*circle, square"),
        (dict(threshold=30), 'threshold 30'),
        (dict(batch_size=0), 'batch size 0'),
        (dict(tile=3), 'tile 3'),
        (dict(dtype='int8'), 'int8'),
    ],
)
def test_wrong_settings(make, settings, message):
    with pytest.raises(UserError, match=message):
        make(**settings)


@pytest.mark.parametrize('device', ['cuda:9', 'gpu', 'meta'])
def test_a_device_that_is_not_there(root, weights, device):
    with pytest.raises(UserError, match=f'device {device} .*cpu'):
        Detector(root / 'tests' / 'data' / 'tiny.py', weights, device)
