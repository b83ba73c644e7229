"""What an exported file holds and gives, seen with its runtime alone."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from mmdet.apis import inference_detector
from PIL import Image

from mpvit.errors import UserError
from mpvit.export import files
from mpvit.export.files import export
from mpvit.files import locks
from mpvit.files.locks import target_held


@pytest.fixture(scope='module')
def pictures(toy):
    """Two images of different sizes, padded to one, as a user of the file would feed them."""
    images = [np.asarray(Image.open(path)) for path in sorted((toy / 'val2017').glob('*'))[:2]]
    images = [images[0][:96, :128], images[1][:128, :80]]
    batch = np.full((2, 3, 128, 128), 200, np.uint8)  # the padding may be anything
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
    return images, batch, np.array([image.shape[:2] for image in images])


def check(outputs, detector, images):
    """Against mmdet's own door, one image after the other.

    The toy config pads to multiples of 128, as the batch is padded.
    """
    for image, boxes, scores, labels in zip(images, *outputs, strict=True):
        expected = inference_detector(detector, image[..., ::-1]).pred_instances
        height, width = image.shape[:2]
        assert np.abs(scores - expected.scores.numpy()).max() < 1e-5
        # the pipeline enlarges to 128 pixels; these images have one side of 128 already
        assert max(height, width) == 128
        assert np.abs(boxes - expected.bboxes.numpy()).max() < 1e-2
        assert (labels == expected.labels.numpy()).all()


def test_onnx_file_needs_nothing_but_onnxruntime(onnx_file, detector, pictures):
    images, batch, sizes = pictures
    session = onnxruntime.InferenceSession(onnx_file, providers=['CPUExecutionProvider'])
    check(session.run(None, {'images': batch, 'sizes': sizes}), detector, images)


def test_openvino_file_needs_nothing_but_openvino(openvino_file, detector, pictures):
    images, batch, sizes = pictures
    compiled = openvino.compile_model(openvino_file, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    results = compiled({'images': batch, 'sizes': sizes})
    check([results[name] for name in ('boxes', 'scores', 'labels')], detector, images)


def test_metadata_tell_how_to_use_the_file(onnx_file, openvino_file, checkpoint):
    session = onnxruntime.InferenceSession(onnx_file, providers=['CPUExecutionProvider'])
    raw = session.get_modelmeta().custom_metadata_map
    facts = {name.removeprefix('mpvit.'): json.loads(value) for name, value in raw.items()}
    assert facts['classes'] == ['circle', 'square', 'triangle', 'star', 'cross', 'digit']
    assert facts['mean'] == [123.675, 116.28, 103.53]
    assert facts['std'] == [58.395, 57.12, 57.375]
    assert facts['channel_order'] == 'RGB'
    assert facts['resize'][0]['scale'] == [128, 128]
    assert 'multiple of 128' in facts['padding']
    assert set(facts['inputs']) == {node.name for node in session.get_inputs()}
    assert set(facts['outputs']) == {node.name for node in session.get_outputs()}
    digest = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    assert facts['checkpoint_sha256'] == digest
    network = openvino.Core().read_model(openvino_file)
    there = {n: json.loads(network.get_rt_info(['mpvit', n]).astype(str)) for n in facts}
    assert there == facts


@pytest.mark.parametrize('format', ['onnx', pytest.param('openvino', marks=pytest.mark.slow)])
def test_file_that_deviates_is_an_error_and_is_not_kept(
    format, tiny, checkpoint, tmp_path, monkeypatch
):
    def spoilt(model, *args, **settings):
        with torch.no_grad():
            model.bbox_head.cls_branches[1].bias += 0.01
        write(model, *args, **settings)
        with torch.no_grad():
            model.bbox_head.cls_branches[1].bias -= 0.01

    write = files.write_onnx
    monkeypatch.setattr(files, 'write_onnx', spoilt)
    target = tmp_path / f'tiny{files.SUFFIXES[format]}'
    with pytest.raises(UserError, match='deviates from PyTorch'):
        export(tiny[0], checkpoint, format=format, target=str(target))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize('format', ['onnx', 'openvino'])
@pytest.mark.parametrize('attention', ['grid_sample', 'gather'])
@pytest.mark.parametrize('dtype', ['fp32', 'fp16'])
def test_every_form_passes_its_comparison(format, attention, dtype, tiny, checkpoint, tmp_path):
    settings = dict(format=format, attention=attention, dtype=dtype)
    target = str(tmp_path / f'tiny{files.SUFFIXES[format]}')
    _, found = export(tiny[0], checkpoint, target=target, **settings)
    print(settings, found)
    assert found.images == 7
    if dtype == 'fp32':
        assert found.lost == 0
        assert found.boxes < 1e-2
        assert found.scores < 1e-5


def test_two_exports_into_one_file(tmp_path, monkeypatch):
    """The second ends before it reads the detector."""
    monkeypatch.setattr(locks, '_PATIENCE', 0)
    (tmp_path / 'a.pth').touch()
    file = tmp_path / 'a.onnx'
    with target_held(file, ''), pytest.raises(UserError, match=r'a\.onnx is in use: process'):
        export('tiny.py', str(tmp_path / 'a.pth'))
