"""Detectors for use in Python: what fits is loaded, what does not is refused."""

import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector

from mpvit.errors import UserError
from mpvit.inference import load_detector


@pytest.fixture(scope='module')
def weights(root):
    """A checkpoint of the tiny config, untrained."""
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from mpvit.config import load_config

    init_default_scope('mmdet')
    model = MODELS.build(load_config(root / 'tests' / 'data' / 'tiny.py').model)
    model.init_weights()
    return model.state_dict()


@pytest.mark.parametrize('place', ['state_dict', 'model', None])
def test_weights_are_those_of_the_file(root, weights, tmp_path, place):
    torch.save(weights if place is None else {place: weights}, tmp_path / 'w.pth')
    model = load_detector(root / 'tests' / 'data' / 'tiny.py', tmp_path / 'w.pth', fold=False)
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    assert len(inference_detector(model, image).pred_instances) == 100


def test_precision_and_folding_reach_the_detector(root, weights, tmp_path):
    torch.save(weights, tmp_path / 'w.pth')
    model = load_detector(root / 'tests' / 'data' / 'tiny.py', tmp_path / 'w.pth', dtype='bf16')
    assert model.backbone.stem[0].conv.weight.dtype == torch.bfloat16
    assert model.backbone.stem[0].conv.bias is not None  # folded
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    found = inference_detector(model, image).pred_instances
    assert len(found) == 100
    assert found.bboxes.dtype == found.scores.dtype == torch.float32


def test_what_does_not_fit_is_refused(root, weights, tmp_path):
    config = root / 'tests' / 'data' / 'tiny.py'
    part = {name: value for name, value in weights.items() if not name.startswith('encoder')}
    torch.save(dict(state_dict=part), tmp_path / 'part.pth')
    with pytest.raises(UserError, match=r'part.pth: .*missing \(encoder'):
        load_detector(config, tmp_path / 'part.pth')
    with pytest.raises(UserError, match='not found'):
        load_detector(config, tmp_path / 'none.pth')
