"""The program of docs/export.md finds in a photo what the detector finds."""

import json
import re

import onnx
import pytest
from mmengine.structures import InstanceData
from PIL import Image
from torch import tensor

from mpvit.export.comparison import differences
from mpvit.inference import Detector

onnxruntime = pytest.importorskip('onnxruntime', reason='needs onnxruntime')

THRESHOLD = 0.02  # the detector was not trained


@pytest.fixture
def program(root):
    """The program of the page, for files in the place of those that it names."""
    page = (root / 'docs' / 'export.md').read_text()
    fence = re.search(r'```python\n(import json\n.*?)```', page, re.DOTALL)
    assert fence
    code = fence[1]
    assert len(code.splitlines()) <= 30

    def run(file, image) -> dict:
        text = code
        for word, place in (('out/detector.onnx', file), ('IMAGE', image), ('0.3', THRESHOLD)):
            assert text.count(word) == 1
            text = text.replace(word, str(place))
        names: dict = {}
        exec(compile(text, 'docs/export.md', 'exec'), names)
        return names

    return run


@pytest.fixture
def photo(toy, tmp_path):
    """A function that makes a photo of a size, with objects of the toy dataset in it."""
    drawn = Image.open(min((toy / 'val2017').iterdir()))

    def make(width, height, rotated=False):
        path = tmp_path / f'{width}x{height}.png'
        exif = Image.Exif()
        exif[0x0112] = 6 if rotated else 1  # a quarter turn
        drawn.resize((width, height)).save(path, exif=exif)
        return path

    return make


def check(found, detector, image, capsys):
    expected = detector(image)
    assert found['photo'].size == expected.size
    pair = [
        InstanceData(bboxes=tensor(boxes).float(), scores=tensor(scores), labels=tensor(labels))
        for boxes, scores, labels in (
            (expected.boxes, expected.scores, expected.labels),
            (found['boxes'], found['scores'], found['labels']),
        )
    ]
    # in any order of equal scores; 0.05 pixels of the photo
    assert differences(*pair, 0.05, 1e-5)[2:] == (0, 100)
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    kept = expected[expected.scores > THRESHOLD].names
    assert len(kept) > 3
    assert sorted(printed) == sorted(kept)


@pytest.mark.parametrize(('size', 'rotated'), [((200, 131), False), ((300, 200), True)], ids=str)
def test_it_finds_what_the_detector_finds(
    program, photo, size, rotated, tiny, checkpoint, onnx_file, capsys
):
    image = photo(*size, rotated)
    found = program(onnx_file, image)
    check(found, Detector(tiny[0], checkpoint, threshold=0), image, capsys)


@pytest.mark.parametrize('size', [(77, 150), (400, 100)], ids=str)
def test_it_resizes_as_detr_does(
    program, photo, size, tiny, checkpoint, onnx_file, tmp_path, capsys
):
    step = dict(type='ShortSideResize', scale=(70, 130))
    config = tmp_path / 'short.py'
    config.write_text(
        f"_base_ = '{tiny[0]}'\npipeline = _base_.test_pipeline\npipeline[1] = {step}\n"
        'test_dataloader = dict(dataset=dict(pipeline=pipeline))'
    )
    model, file = onnx.load(onnx_file), tmp_path / 'short.onnx'
    for entry in model.metadata_props:
        if entry.key == 'mpvit.resize':  # as an export with this config writes it
            entry.value = json.dumps([step])
    onnx.save(model, file)
    image = photo(*size)
    found = program(file, image)
    assert min(found['width'], found['height']) == min(70, round(130 * min(size) / max(size)))
    check(found, Detector(config, checkpoint, threshold=0), image, capsys)
