"""Which trackers a run has, by its config and by the command line."""

import importlib.util

import pytest
from mmengine.config import ConfigDict

from mpvit.config.reading import load_config
from mpvit.config.trackers import use_trackers, without_trackers
from mpvit.errors import UserError


def types(cfg):
    return [backend.type for backend in cfg.visualizer.vis_backends]


@pytest.fixture
def cfg(tiny, tmp_path):
    return load_config(tiny[0], tiny[1], work_dir=str(tmp_path))


def test_trackers_are_added_to_those_of_the_config(cfg):
    use_trackers(cfg)
    assert types(cfg) == ['LocalVisBackend', 'TensorboardTracker']
    use_trackers(cfg, ['wandb', 'mlflow'])
    use_trackers(cfg, ['wandb'])  # a second time changes nothing
    assert types(cfg)[2:] == ['WandbTracker', 'MLflowTracker']
    without_trackers(cfg)
    assert types(cfg) == ['LocalVisBackend']


def test_a_run_is_continued_only_from_a_checkpoint(cfg, tmp_path):
    def continued():
        use_trackers(cfg)
        return cfg.visualizer.vis_backends[1].continued

    assert not continued()
    cfg.resume = 'auto'
    assert not continued()  # nothing to go on from
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    assert continued()
    cfg.resume = False
    assert not continued()


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
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'--track mlflow: .*mpvit\[tracking\]'):
        use_trackers(cfg, ['mlflow'])
