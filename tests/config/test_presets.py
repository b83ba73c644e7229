"""What flags make of a config: which trackers a run has."""

import sys

import pytest
from mmengine.config import ConfigDict

from mpvit.config.presets import use_trackers, without_trackers
from mpvit.config.reading import load_config
from mpvit.errors import UserError


def types(cfg):
    return [backend.type for backend in cfg.visualizer.vis_backends]


@pytest.fixture
def cfg(tiny):
    return load_config(tiny[0], tiny[1])


def test_trackers_are_added_to_those_of_the_config(cfg):
    use_trackers(cfg)
    assert types(cfg) == ['LocalVisBackend', 'TensorboardTracker']
    use_trackers(cfg, ['wandb', 'mlflow'])
    use_trackers(cfg, ['wandb'])  # a second time changes nothing
    assert types(cfg)[2:] == ['WandbTracker', 'MLflowTracker']
    without_trackers(cfg)
    assert types(cfg) == ['LocalVisBackend']


def test_records_go_on_where_the_training_does(cfg):
    for continued in (False, True):
        use_trackers(cfg, continued=continued)
        assert cfg.visualizer.vis_backends[1].continued is continued


def test_a_config_without_visualizer(cfg):
    cfg.visualizer = None
    use_trackers(cfg, ['wandb'])
    without_trackers(cfg)
    assert cfg.visualizer is None


def test_mmengines_own_backends_are_left_alone(cfg):
    cfg.visualizer.vis_backends = [ConfigDict(type='TensorboardVisBackend')]
    use_trackers(cfg)
    assert 'continued' not in cfg.visualizer.vis_backends[0]


def test_a_missing_package_ends_it_before_it_starts(cfg, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mlflow', None)
    with pytest.raises(UserError, match=r'--track mlflow .*mpvit\[tracking\]'):
        use_trackers(cfg, ['mlflow'])
