"""The batch that fits a GPU: how it is found, and that looking for it changes nothing."""

import json
import random

import numpy as np
import pytest
import torch
from interruptions import differences
from mmdet.visualization import DetLocalVisualizer
from mmengine.dist import is_distributed
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from runs import log_of

from mpvit.config.flags import TrainingFlags
from mpvit.engine import batch_size
from mpvit.engine.batch_size import largest_batch, untouched
from mpvit.engine.train import train
from mpvit.errors import UserError

pytestmark = pytest.mark.usefixtures('one_thread')
AUTO = TrainingFlags(batch_size='auto')


NO_ROOM = torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')


def limited(limit, error=NO_ROOM):
    def step(size):
        if size > limit:
            raise error

    return step


@pytest.mark.parametrize(('limit', 'found'), [(0, 0), (1, 1), (5, 4), (8, 8), (100, 8)])
def test_the_largest_that_fits(limit, found):
    assert largest_batch(limited(limit), [1, 2, 4, 8]) == found


def test_other_errors_of_a_step_are_not_about_memory():
    assert largest_batch(limited(1, RuntimeError('CUDNN_STATUS_ALLOC_FAILED')), [1, 2]) == 1
    with pytest.raises(RuntimeError, match='shapes'):
        largest_batch(limited(1, RuntimeError('shapes do not fit')), [1, 2])


def test_random_numbers_buffers_and_gradients_stay(monkeypatch):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    with untouched(model):
        assert not is_distributed()  # a process that runs out of memory leaves none waiting
        model.train()(torch.randn(4, 1, 2, 2)).sum().backward()
        random.random(), np.random.rand(), torch.rand(1)
        assert model[1].num_batches_tracked == 1
    assert is_distributed()
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.fixture
def run(tiny, tmp_path):
    """Train for an epoch of 8 images; returns the work folder."""

    def call(name, flags=None, options=(), **more):
        MMLogger._instance_dict.clear()
        DetLocalVisualizer._instance_dict.clear()
        options = [*tiny[1], 'train_cfg.val_interval=9', 'train_cfg.max_epochs=1', *options]
        train(tiny[0], work_dir=str(tmp_path / name), flags=flags, cfg_options=options, **more)
        return tmp_path / name

    return call


@pytest.fixture
def gpu(monkeypatch):
    """As if there were a GPU with room for so many images, which counts the tries."""
    tries = []
    whole = BaseModel.train_step

    def pretend(room):
        def step(self, data, optim_wrapper):
            if optim_wrapper._accumulative_counts > 1000:  # a try
                tries.append(len(data['inputs']))
                limited(room)(tries[-1])
            return whole(self, data, optim_wrapper)

        monkeypatch.setattr(batch_size, '_device', lambda runner: torch.device('cuda'))
        monkeypatch.setattr(batch_size, '_reserve', lambda device, size: None)
        monkeypatch.setattr(BaseModel, 'train_step', step)
        return tries

    return pretend


def test_a_training_with_the_batch_that_was_found_is_the_same_as_if_it_had_been_given(
    run, gpu, tmp_path, capsys
):
    tries = gpu(room=3)
    found = run('found', AUTO)
    assert tries == [1, 1, 2, 2, 4]
    line = '--batch-size auto: 2 a process, images of up to 128 x 128 px; 4 do not fit'
    shown = capsys.readouterr().out
    assert line in shown
    assert '8 images a step (2 x 1 processes x 4)' in shown  # of the recipe's 16, there are 8
    assert line in log_of(found)
    given = run('given', TrainingFlags(batch_size=2), ['optim_wrapper.accumulative_counts=4'])
    assert differences(found / 'epoch_1.pth', given / 'epoch_1.pth') == []
    record = json.loads((found / 'run.json').read_text())
    assert (record['batch_size'], record['accumulative_counts']) == (2, 4)

    tries.clear()  # what is resumed keeps its batch, whatever would fit now
    for name, resume in (('found', 'auto'), ('other', str(found / 'epoch_1.pth'))):
        run(name, AUTO, resume=resume)  # finished already
        assert '2 a process, as in the training that is resumed' in capsys.readouterr().out
    assert tries == []


def test_not_even_one_image_fits(run, gpu):
    gpu(room=0)
    with pytest.raises(UserError, match='not even one image of 128 x 128 px'):
        run('work', AUTO)


@pytest.mark.parametrize(
    ('batch', 'line'), [(4, '4 a process, as in the config'), (16, '8 a process, all images')]
)
def test_on_a_cpu_the_batch_of_the_config_stays(run, capsys, batch, line):
    with pytest.raises(UserError, match='no training step'):
        run('work', AUTO, [f'train_dataloader.batch_size={batch}', 'train_cfg.max_epochs=0'])
    assert f'--batch-size auto: {line}' in capsys.readouterr().out


def test_a_checkpoint_that_does_not_say(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'bare.pth')
    with pytest.raises(UserError, match='--batch-size N'):
        batch_size.batch_of(tmp_path / 'bare.pth')
