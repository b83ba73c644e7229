"""Faults in the middle of a training, through the tool: one line, and the last checkpoint stays."""

import os
import signal

import torch
from mmdet.registry import TRANSFORMS
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from runs import log_of

from mpvit.checkpoints.reading import read


@HOOKS.register_module(force=True)
class PoisonHook(Hook):
    """Replaces the first image of some steps by NaN."""

    def __init__(self, steps):
        self.steps = steps

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 in self.steps:
            data_batch['inputs'][0] = torch.full(data_batch['inputs'][0].shape, float('nan'))


@TRANSFORMS.register_module(force=True)
class HarmTransform:
    """Comes to harm once, when a file says so."""

    def __init__(self, file):
        self.file = file

    def __call__(self, results):
        if os.path.exists(self.file):
            os.kill(os.getpid(), signal.SIGKILL)
        return results


@HOOKS.register_module(force=True)
class TouchHook(Hook):
    """Writes a file after the first epoch, once its checkpoint is there."""

    priority = 'LOWEST'

    def __init__(self, file):
        self.file = file

    def after_train_epoch(self, runner):
        open(self.file, 'w').close()


def write_config(folder, base, *hooks, more=''):
    path = folder / 'config.py'
    listed = ', '.join(map(repr, hooks))
    path.write_text(f"_base_ = '{base}'\ncustom_hooks = [*_base_.custom_hooks, {listed}]\n{more}")
    return path


def floats(state):
    return [v for v in state.values() if torch.is_tensor(v) and v.is_floating_point()]


EMA = dict(type='EMAHook', ema_type='SharedWeightsEMA', momentum=0.5)


def test_a_poisoned_step_leaves_no_trace(tiny_run, tiny, tmp_path):
    work = tmp_path / 'work'
    config = write_config(tmp_path, tiny[0], EMA, dict(type='PoisonHook', steps=[1, 2, 4]))
    tiny_run('train', config=config)
    assert 'Step 2 was not applied (gradient norm nan; loss nan' in log_of(work)
    # the first epoch is two steps, both poisoned: weights and statistics are those of the start
    first, second = (read(work / f'epoch_{epoch}.pth') for epoch in (1, 2))
    assert torch.equal(
        first['state_dict']['backbone.stem.0.bn.running_mean'], torch.zeros(8)
    ) or not any(v.isnan().any() for v in floats(first['state_dict']))
    for checkpoint in (first, second):
        for state in (checkpoint['state_dict'], checkpoint['ema_state_dict']):
            assert all(v.isfinite().all() for v in floats(state))
    changed = [
        name
        for name, value in first['ema_state_dict'].items()
        if torch.is_tensor(value) and not torch.equal(value, second['ema_state_dict'][name])
    ]
    assert changed  # the third step was applied
    assert len(list((work / 'nonfinite').glob('iter_[124]_rank_0.pt'))) == 3


def test_training_ends_with_the_images_and_the_last_checkpoint(tiny_run, refused, tiny, tmp_path):
    work = tmp_path / 'work'
    config = write_config(tmp_path, tiny[0], dict(type='PoisonHook', steps=range(3, 99)))
    words = [
        'training stopped at step 4: 2 steps in a row were not finite (gradient norm nan; loss nan',
        'train2017/',
        str(work / 'nonfinite' / 'iter_4_rank_0.json'),
        f'the last checkpoint is {work}/epoch_1.pth',
    ]
    options = ['default_hooks.finite.max_in_a_row=2']
    tiny_run('train', config=config, options=options, run=refused, says=words)
    assert all(v.isfinite().all() for v in floats(read(work / 'epoch_1.pth')['state_dict']))


def test_a_worker_that_is_killed_ends_training_in_one_line(tiny_run, refused, tiny, tmp_path):
    file = str(tmp_path / 'now')
    config = write_config(
        tmp_path,
        tiny[0],
        dict(type='TouchHook', file=file),
        more=(
            'pipeline = _base_.train_pipeline\n'
            f"pipeline.insert(1, dict(type='HarmTransform', file='{file}'))\n"
            'train_dataloader = dict(num_workers=1, dataset=dict(pipeline=pipeline))\n'
        ),
    )
    work = tmp_path / 'work'
    words = ['a worker of a dataloader died (killed by signal: Killed)', 'lower num_workers']
    words.append(f'the last checkpoint is {work}/epoch_1.pth')
    tiny_run('train', config=config, run=refused, says=words)
    assert read(work / 'epoch_1.pth')
