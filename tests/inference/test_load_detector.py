"""Detectors for use in Python: what fits is loaded, what does not is refused."""

import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector

from mpvit.datasets.toy import CLASSES
from mpvit.errors import UserError
from mpvit.export.files import _facts
from mpvit.inference import Detector, load_detector
from mpvit.inference.queries import record


@pytest.fixture(scope='module')
def weights(weights):
    """The tensors of a checkpoint of the tiny config."""
    return torch.load(weights)['state_dict']


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


WRAPPED = """
inner = dict(type='ToyDataset', pipeline={{_base_.test_dataloader.dataset.pipeline}}, metainfo=%s)
test_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=1, dataset=inner))
"""


@pytest.mark.parametrize(
    ('metainfo', 'names'), [('None', CLASSES), ("dict(classes=list('uvwxyz'))", tuple('uvwxyz'))]
)
def test_every_door_names_the_classes_alike(root, weights, tmp_path, metainfo, names):
    """Of a checkpoint without names, by a config whose dataset is wrapped."""
    config, checkpoint = tmp_path / 'wrapped.py', tmp_path / 'w.pth'
    torch.save(weights, checkpoint)
    config.write_text(f"_base_ = '{root}/tests/data/tiny.py'" + WRAPPED % metainfo)
    model = load_detector(config, checkpoint)
    facts = _facts(model, str(checkpoint))
    image = np.zeros((90, 120, 3), np.uint8)
    assert tuple(facts['classes']) == tuple(names)
    assert facts['resize'][0]['scale'] == [128, 128]
    assert Detector(config, checkpoint, 'cpu').classes == tuple(names)
    assert record(model, image).classes == tuple(names)
    torch.save(
        dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=[*'abcdef']))), checkpoint
    )
    assert Detector(config, checkpoint, 'cpu').classes == tuple('abcdef')
