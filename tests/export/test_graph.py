"""The exported function, before any runtime."""

import copy

import pytest
import torch
from parity_detector import DetectorParity
from torch.nn import functional as F

from mpvit.config.reading import load_config
from mpvit.export.comparison import verify
from mpvit.export.files import _facts, write_onnx
from mpvit.export.graph import _inside
from mpvit.inference import prepare
from mpvit.models.exported import load_exported


def test_padding_of_maps_is_that_of_mmdets_interpolation():
    for full in [*range(33, 400, 7), *range(800, 1334, 13)]:
        for stride in (8, 16, 32, 64):
            length = -(-full // stride)
            valid = torch.arange(1, full + 1)
            sizes = torch.stack([valid, torch.full_like(valid, 2)], 1)
            pixels = (torch.arange(full) < valid[:, None]).float()
            # as mmdet: nearest, of the mask as one channel of an image
            nearest = F.interpolate(pixels[None, ..., None], size=(length, 1))[0, ..., 0]
            rows = _inside(sizes, (full, 2), (length, 1))[1]
            assert torch.equal(rows, nearest.bool()), (full, length)


def exported(model, cfg, tmp_path, **settings):
    """The model as a file, opened."""
    model.cfg = cfg
    model.dataset_meta = dict(classes=tuple(map(str, range(model.bbox_head.num_classes))))
    file = tmp_path / f'{len(list(tmp_path.iterdir()))}.onnx'
    write_onnx(prepare(copy.deepcopy(model)), file, _facts(model, 'http://none'), **settings)
    return load_exported(cfg, file)


@pytest.mark.slow
@pytest.mark.parametrize('attention', ['grid_sample', 'gather'])
@pytest.mark.parametrize('name', ['r50', 'mpvit_small', 'r50_refine_two_stage', 'coat_small'])
def test_detectors_with_official_weights_keep_their_results(name, attention, tmp_path):
    """`tests/test_parity.py` holds the same models in PyTorch to the official ones."""
    parity = DetectorParity(name)
    model = parity.model.eval().requires_grad_(False)
    result = verify(model, exported(model, parity.config, tmp_path, attention=attention))
    print(name, attention, result)
    assert result.lost == 0


@pytest.mark.parametrize(
    'refine', [False, pytest.param(True, marks=pytest.mark.slow)], ids=['plain', 'refine']
)
def test_detectors_without_two_stages(refine, root, untrained, tmp_path):
    cfg = load_config(
        root / 'tests' / 'data' / 'tiny.py',
        ['model.as_two_stage=False', f'model.with_box_refine={refine}'],
    )
    model = untrained(cfg)
    found = verify(model, exported(model, cfg, tmp_path))
    assert found.lost == 0
    assert found.boxes < 1e-2


def test_file_of_one_size_and_batch(root, untrained, tmp_path):
    cfg = load_config(root / 'tests' / 'data' / 'tiny.py', ['model.as_two_stage=False'])
    model = untrained(cfg)
    found = verify(model, exported(model, cfg, tmp_path, size=(128, 256), batch=2))
    assert (found.lost, found.images) == (0, 8)
