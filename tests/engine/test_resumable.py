"""A checkpoint is sound as the state of a training, or refused before anything is taken of it."""

import copy
import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mpvit.checkpoints.compatibility import WeightsError
from mpvit.checkpoints.writing import NotSaved
from mpvit.engine.hooks.checkpoint import write_checkpoint
from mpvit.engine.resumable import POSITION, DamagedState, check_state
from mpvit.engine.runner import newest_checkpoint

NAN = float('nan')


@pytest.fixture
def model():
    return nn.Linear(3, 2)


@pytest.fixture
def optimizer(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.fixture
def checkpoint(model, optimizer):
    info = {'keep_ckpt_ids': [1], 'best_score': 0.1, POSITION: dict(epoch=0, start=0, batches=4)}
    average = {f'module.{name}': value for name, value in model.state_dict().items()}
    return copy.deepcopy(
        dict(
            state_dict=model.state_dict(),
            ema_state_dict=dict(average, steps=torch.tensor(4)),
            meta=dict(epoch=1, iter=4, seed=7),
            message_hub=dict(log_scalars={}, runtime_info=info, resumed_keys={}),
            optimizer=optimizer.state_dict(),
            param_schedulers=[dict(last_step=4, base_values=[1e-3], end=10**9)],
            rank_buffers=[{}],
            gradients=dict(weight=torch.zeros(2, 3)),
        )
    )


def put(place, value):
    """A change: ``value`` in the place of an entry."""

    def change(checkpoint):
        *above, key = place
        for name in above:
            checkpoint = checkpoint[name]
        checkpoint[key] = value

    return change


INFO = ('message_hub', 'runtime_info')
STATE = ('optimizer', 'state', 0)
GROUP = ('optimizer', 'param_groups', 0)


@pytest.mark.parametrize(
    ('place', 'value', 'named'),
    [
        (('meta',), [], 'meta is not a dict'),
        (('meta', 'iter'), 'x', 'meta.iter'),
        (('meta', 'iter'), -5, 'meta.iter'),
        (('meta', 'iter'), 10**9, 'epoch 1'),
        (('meta', 'epoch'), 10**9, '1000000000 epochs and 4 steps'),
        (('meta', 'epoch'), 2, '2 epochs'),
        (('meta', 'seed'), 'x', 'meta.seed'),
        (('meta', 'seed'), 2**32, 'meta.seed'),
        (('message_hub',), [], 'message_hub is not a dict'),
        (('message_hub', 'resumed_keys'), 3, 'resumed_keys'),
        ((*INFO, 'keep_ckpt_ids'), 5, 'keep_ckpt_ids'),
        ((*INFO, 'best_score'), 'x', 'best_score'),
        ((*INFO, POSITION), {'epoch': 0}, POSITION),
        (('optimizer',), {}, 'optimizer.state'),
        (('optimizer', 'param_groups'), [{}], 'optimizer.param_groups'),
        (STATE, {'exp_avg': torch.zeros(2, 3)}, 'has no step'),
        ((*STATE, 'exp_avg'), torch.zeros(3), r'exp_avg has the shape \(3,\) instead of \(2, 3\)'),
        ((*STATE, 'exp_avg'), torch.zeros(()), 'exp_avg has the shape'),
        ((*STATE, 'exp_avg'), torch.full((2, 3), NAN), 'exp_avg holds NaN'),
        ((*STATE, 'exp_avg'), torch.full((2, 3), 1e300, dtype=torch.double), 'exp_avg holds NaN'),
        ((*STATE, 'exp_avg'), torch.zeros(2, 3, dtype=torch.bool), 'of the kind bool'),
        ((*STATE, 'exp_avg_sq'), 5, 'exp_avg_sq is a int'),
        ((*STATE, 'step'), torch.zeros(3), 'step'),
        ((*GROUP, 'lr'), NAN, 'lr of group 0'),
        ((*GROUP, 'lr'), 'x', 'lr of group 0'),
        ((*GROUP, 'lr'), None, 'lr of group 0'),
        ((*GROUP, 'betas'), (0.9,), 'betas of group 0'),
        ((*GROUP, 'initial_lr'), NAN, 'initial_lr of group 0'),
        (('param_schedulers',), 3, 'param_schedulers'),
        (('param_schedulers', 0, 'last_step'), 'x', 'last_step'),
        (('param_schedulers', 0, 'base_values'), [NAN], 'base_values'),
        (('param_schedulers', 0, 'base_values'), [1.0] * 5, 'base_values'),
        (('rank_buffers',), 5, 'rank_buffers'),
        (('rank_buffers',), [{'x': torch.zeros(1)}], 'the model has no x'),
        (('rank_buffers',), [{'bias': torch.zeros(1)}], 'bias has the shape'),
        (('gradients',), 4, 'gradients'),
        (('gradients',), {'weight': torch.zeros(1)}, 'gradients: weight has the shape'),
        (('ema_state_dict',), 5, 'ema_state_dict'),
        (('ema_state_dict', 'module.bias'), torch.zeros(5), 'ema_state_dict: bias'),
    ],
)
def test_what_cannot_be_right_is_named(checkpoint, model, optimizer, place, value, named):
    schedulers = [dict(last_step=0, base_values=[1e-3])]
    check_state(checkpoint, model, optimizer, schedulers)
    put(place, value)(checkpoint)
    with pytest.raises(DamagedState, match=named):
        check_state(checkpoint, model, optimizer, schedulers)


def test_weights_are_looked_at_too(checkpoint, model, optimizer):
    checkpoint['state_dict']['bias'] = torch.full((2,), 1e300, dtype=torch.float64)
    with pytest.raises(WeightsError, match='bias holds NaN or infinity'):  # in 32 bits
        check_state(checkpoint, model, optimizer)


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        (('meta', 'seed'), None),
        (('optimizer', 'state'), {}),  # nothing had a gradient yet
        ((*STATE, 'step'), 1),  # of older versions of torch
        (('gradients', 'weight'), torch.full((2, 3), NAN)),  # the optimizer leaves that step out
        ((*INFO, POSITION), dict(epoch=1, start=2, batches=4)),  # inside an epoch
        (('param_schedulers',), []),
    ],
)
def test_what_may_be_is_taken(checkpoint, model, optimizer, place, value):
    put(place, value)(checkpoint)
    check_state(checkpoint, model, optimizer)


def test_other_models_and_weights_alone_are_for_others_to_tell(checkpoint, model, optimizer):
    check_state(checkpoint, nn.Linear(4, 4), torch.optim.AdamW(nn.Linear(4, 4).parameters()))
    check_state({'state_dict': checkpoint['state_dict']}, model, optimizer)


def test_processes_keep_buffers_that_no_state_dict_has(checkpoint, model, optimizer):
    """As the mean of the images of mmdet's preprocessor."""
    model.register_buffer('mean', torch.zeros(3), persistent=False)
    assert 'mean' not in model.state_dict()
    checkpoint['rank_buffers'] = [dict(model.named_buffers())] * 2
    check_state(checkpoint, model, optimizer)
    checkpoint['rank_buffers'] = [dict(mean=torch.zeros(4))]
    with pytest.raises(DamagedState, match='mean has the shape'):
        check_state(checkpoint, model, optimizer)


def test_several_optimizers_have_a_state_each(checkpoint, model):
    """As mmengine's ``OptimWrapperDict`` writes them."""
    checkpoint['optimizer'] = dict(first=checkpoint['optimizer'])
    checkpoint['param_schedulers'] = dict(first=checkpoint['param_schedulers'])
    check_state(checkpoint, model)
    checkpoint['optimizer'] = 3
    with pytest.raises(DamagedState, match='optimizer is not a dict'):
        check_state(checkpoint, model)


@pytest.mark.parametrize(
    ('place', 'value', 'named'),
    [
        (('meta',), [], 'epoch_2.pth is damaged: meta'),
        (STATE, {'exp_avg': torch.zeros(3)}, 'epoch_2.pth is damaged: optimizer: state 0'),
        (('state_dict', 'bias'), torch.full((2,), NAN), 'epoch_2.pth: the checkpoint cannot be'),
    ],
)
def test_the_one_before_is_resumed_from(
    checkpoint, model, optimizer, tmp_path, monkeypatch, place, value, named
):
    lines = []
    monkeypatch.setattr('mpvit.engine.runner.print_log', lambda line, **_: lines.append(line))
    wrapper = OptimWrapper(optimizer)
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper, param_schedulers=[])
    for number in (1, 2):
        torch.save(checkpoint, path := tmp_path / f'epoch_{number}.pth')
        os.utime(path, (number, number))
        if number == 1:
            put(place, value)(checkpoint)
    assert newest_checkpoint(tmp_path, runner) == tmp_path / 'epoch_1.pth'
    assert named in lines[0]


@pytest.mark.parametrize(
    ('place', 'value'),
    [((*STATE, 'exp_avg'), torch.full((2, 3), NAN)), ((*GROUP, 'lr'), NAN)],
)
def test_an_optimizer_that_is_not_finite_is_not_saved(checkpoint, tmp_path, place, value):
    write_checkpoint(checkpoint, str(tmp_path / 'good.pth'))
    put(place, value)(checkpoint)
    with pytest.raises(NotSaved, match=rf'optimizer states .* not saved \({place[-1]}\)'):
        write_checkpoint(checkpoint, str(tmp_path / 'bad.pth'))
    assert [path.name for path in tmp_path.iterdir()] == ['good.pth']
