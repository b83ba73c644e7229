"""A detector whose detections depend on every pixel, without training."""

import pytest
import torch


@pytest.fixture(scope='session')
def weights(root, tmp_path_factory):
    """A checkpoint of the tiny config, initialised and then shaken so that nothing is constant."""
    from mpvit.config.reading import load_config
    from mpvit.model_info.info import random_detector

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = random_detector(load_config(root / 'tests' / 'data' / 'tiny.py'))
        for name, parameter in model.named_parameters():
            strength = 0.3 if 'cls_branches' in name else 0.05  # for scores far apart
            parameter.data += strength * torch.randn_like(parameter)
            if 'reg_branches' in name and name.endswith('.4.bias'):
                parameter.data[2:] += 0.6  # for boxes that overlap
    path = tmp_path_factory.mktemp('weights') / 'shaken.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='session')
def make(root, weights):
    """Makes a detector with settings; every detection counts unless a threshold is given."""
    from mpvit.inference import Detector

    def make(**settings):
        settings = dict(threshold=0.0) | settings
        return Detector(root / 'tests' / 'data' / 'tiny.py', weights, 'cpu', **settings)

    return make


@pytest.fixture(scope='session')
def detector(make):
    """One with the usual settings."""
    return make()


@pytest.fixture(scope='session')
def photos(toy):
    """Images of different sizes."""
    return sorted((toy / 'val2017').iterdir())
