"""What the learning rate is multiplied with and the line that says so; restarts refused."""

import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mpvit.engine import build
from mpvit.engine.runner import PortableRunner, lr_factor
from mpvit.errors import UserError


@pytest.mark.parametrize(
    ('base', 'rule', 'message'),
    [(16, 'cubic', "'cubic' is unknown; choose linear or sqrt"), (0, 'sqrt', 'must be positive')],
)
def test_mistakes(base, rule, message):
    with pytest.raises(UserError, match=message):
        lr_factor(2, base, rule)


@pytest.mark.parametrize(
    ('settings', 'counts', 'lr', 'line'),
    [
        (dict(enable=True), 1, 0.01, '0.01 = 0.04 x 0.25: 4 images a step (2 x 2 processes x 1'),
        (dict(enable=True), 4, 0.04, '0.04 = 0.04 x 1: 16 images a step (2 x 2 processes x 4 bat'),
        (dict(enable=True, rule='sqrt'), 1, 0.02, '0.02 = 0.04 x 0.5: 4 images a step'),
        (dict(enable=False), 1, 0.04, '0.04, not scaled: 4 images a step'),
    ],
)
def test_the_learning_rate_follows_the_images_of_a_step(settings, counts, lr, line):
    lines = []
    logger = SimpleNamespace(info=lines.append)
    runner = SimpleNamespace(_train_dataloader=dict(batch_size=2), world_size=2, logger=logger)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.04)
    wrapper = SimpleNamespace(optimizer=optimizer, _accumulative_counts=counts)
    PortableRunner.scale_lr(runner, wrapper, dict(settings, base_batch_size=16))
    assert optimizer.param_groups[0]['lr'] == pytest.approx(lr)
    assert len(lines) == 1
    assert lines[0].startswith(f'Learning rate {line}')


def test_scaling_needs_to_know_for_how_many_images_the_rate_is_meant():
    runner = SimpleNamespace(_train_dataloader=dict(batch_size=2), world_size=1)
    wrapper = SimpleNamespace(optimizer=SimpleNamespace(defaults=dict(lr=1)))
    with pytest.raises(UserError, match='base_batch_size'):
        PortableRunner.scale_lr(runner, wrapper, dict(enable=True))


def test_a_config_is_formatted_again_only_where_it_changed():
    config = Config(dict(a=1))
    assert config.pretty_text is config.pretty_text
    config.a = 2
    assert '2' in config.pretty_text


@pytest.mark.parametrize(
    ('restarts', 'shared', 'refused'),
    [('3', 'True', True), ('3', 'False', False), ('0', 'True', False)],
)
def test_torchrun_is_refused_where_its_restart_would_fail(monkeypatch, restarts, shared, refused):
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', restarts)
    monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', shared)
    started = []
    monkeypatch.setattr(Runner, 'setup_env', lambda self, env_cfg: started.append(self))
    runner = object.__new__(PortableRunner)
    runner._distributed = False
    with pytest.raises(UserError, match='MAX_RESTARTS=3') if refused else nullcontext():
        runner.setup_env({})
    assert started == ([] if refused else [runner])


def test_names_in_the_log_are_no_commands_to_a_terminal(tmp_path, capsys):
    runner = object.__new__(PortableRunner)
    runner.cfg, runner._log_dir, runner._timestamp = Config(dict(a=1)), str(tmp_path), '1'
    runner._experiment_name = 'names'
    logger = runner.build_logger(log_file=str(tmp_path / 'a.log'))
    logger.warning('class %s\nnext\tline', 'a\x1b[31mb\x9b\r')
    for text in (''.join(capsys.readouterr()), (tmp_path / 'a.log').read_text()):
        assert 'class a?[31mb??\nnext' in text


@pytest.mark.parametrize('wanted', [False, True])
def test_products_of_matrices_are_repeatable_where_that_is_asked_for(wanted, monkeypatch):
    """Torch refuses them on a GPU without the variable."""
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', '')  # so that it is undone
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG')
    monkeypatch.setattr(build.RUNNERS, 'build', lambda cfg: SimpleNamespace())
    build.build_runner(Config(dict(randomness=dict(deterministic=wanted))))
    assert ('CUBLAS_WORKSPACE_CONFIG' in os.environ) == wanted
