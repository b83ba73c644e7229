"""Files in official form, built from the names of the released ones and fixed numbers."""

import copy
import json

import parity_detector
import parity_fill
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mpvit.config.reading import load_config


@pytest.fixture(scope='session')
def keys(root):
    """Names, shapes and copies in an official file: ``keys('detector_r50')``."""
    folder = root / 'tests' / 'data' / 'parity' / 'keys'
    return lambda name: json.loads((folder / f'{name}.json').read_text())


@pytest.fixture(scope='session')
def official(keys):
    """Tensors of an official file: ``official('detector_r50')``. They are not to be changed."""
    made = {}

    def build(name):
        if name not in made:
            listed = keys(name)
            values = parity_fill.fill_state_dict(listed['keys'], listed['aliases'], seed=0)
            made[name] = {key: torch.from_numpy(value) for key, value in values.items()}
        return dict(made[name])

    return build


@pytest.fixture(scope='session')
def detector(root):
    """One of our models, for an official detector: ``detector('r50', num_classes=80)``."""
    init_default_scope('mmdet')

    def build(name, num_classes=80):
        config = parity_detector.CONFIGS[name]
        model = load_config(root / 'configs' / 'deformable_detr' / f'{config}.py').model
        model.bbox_head.num_classes = num_classes
        return MODELS.build(copy.deepcopy(model))

    return build
