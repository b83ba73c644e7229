"""Steps that are not finite: nothing of them stays, and the rest is mmengine's bit for bit."""

import copy
import json
import logging
import math
import os
from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.structures import InstanceData
from torch import distributed, multiprocessing, nn

from mpvit.engine.hooks.finite_steps import FiniteStepHook
from mpvit.engine.optimizer import (
    AutocastOptimWrapper,
    FiniteAmpOptimWrapper,
    FiniteOptimWrapper,
)
from mpvit.errors import UserError

NAN = float('nan')
CLIPS = [dict(max_norm=0.1), dict(type='value', clip_value=0.01), None]


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def wrapper_of(model, kind='FiniteOptimWrapper', clip_grad=None, **options):
    return build_optim_wrapper(
        model,
        dict(
            type=kind,
            optimizer=dict(type='AdamW', lr=0.01),
            clip_grad=copy.deepcopy(clip_grad),
            **options,
        ),
    )


def step(model, wrapper, scale=1.0, seed=0):
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    with wrapper.optim_context(model):
        loss = model(inputs * scale).square().mean()
    wrapper.update_params(loss)
    return loss


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize('clip_grad', CLIPS, ids=['norm', 'value', 'none'])
def test_finite_steps_are_bit_for_bit_mmengines(clip_grad):
    ours, theirs = build_model(), build_model()
    pairs = [(ours, wrapper_of(ours, clip_grad=clip_grad))]
    pairs += [(theirs, wrapper_of(theirs, 'OptimWrapper', clip_grad))]
    for seed in range(8):
        for model, wrapper in pairs:
            step(model, wrapper, seed=seed)
    assert equal(weights(ours), weights(theirs))
    assert not equal(weights(ours), weights(build_model()))
    assert pairs[0][1].skipped == 0
    assert 0 < pairs[0][1].grad_norm < math.inf


@pytest.mark.parametrize('clip_grad', CLIPS, ids=['norm', 'value', 'none'])
@pytest.mark.parametrize('scale', [NAN, float('inf')])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(clip_grad, scale):
    model = build_model()
    wrapper = wrapper_of(model, clip_grad=clip_grad)
    step(model, wrapper)
    before, state = weights(model), copy.deepcopy(wrapper.state_dict())
    step(model, wrapper, scale)
    step(model, wrapper, scale)
    assert equal(weights(model), before)
    assert str(wrapper.state_dict()) == str(state)
    assert (wrapper.skipped, wrapper.skipped_in_a_row) == (2, 2)
    assert all(p.grad is None for p in model.parameters())
    model[1].reset_running_stats()  # which the forward pass made NaN; the hook puts them back
    step(model, wrapper)
    assert not equal(weights(model), before)
    assert (wrapper.skipped, wrapper.skipped_in_a_row) == (2, 0)


def test_accumulated_gradients_are_left_out_together():
    model = build_model()
    wrapper = wrapper_of(model, clip_grad=CLIPS[0], accumulative_counts=2)
    before = weights(model)
    step(model, wrapper, NAN)
    assert wrapper.skipped == 0  # no step yet
    step(model, wrapper)
    assert wrapper.skipped == 1
    assert equal(weights(model), before)


def test_bf16_goes_through_the_same_gate():
    assert issubclass(AutocastOptimWrapper, FiniteOptimWrapper)


def test_a_dynamic_loss_scale_may_search_before_steps_count_in_a_row(monkeypatch):
    """On the CPU, whose scaler is the same class."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(
        amp_optimizer_wrapper, 'GradScaler', lambda **kw: torch.amp.GradScaler('cpu', **kw)
    )
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = FiniteAmpOptimWrapper(
        optimizer=optimizer, loss_scale=dict(init_scale=4.0), clip_grad=dict(max_norm=1.0)
    )
    wrapper.optim_context = OptimWrapper.optim_context.__get__(wrapper)  # autocast is of a GPU
    before = weights(model)
    rows = []
    for _ in range(4):
        step(model, wrapper, NAN)
        rows.append(wrapper.skipped_in_a_row)
    assert rows == [0, 0, 1, 2]  # at scales of 4, 2, 1 and 0.5
    assert wrapper.skipped == 4
    assert equal(weights(model), before)


def batch(*images, boxes=1):
    samples = []
    for image in images:
        sample = DetDataSample(metainfo=dict(img_id=image, img_path=f'{image}.jpg'))
        sample.gt_instances = InstanceData(
            bboxes=torch.ones(boxes, 4), labels=torch.zeros(boxes, dtype=torch.long)
        )
        samples.append(sample)
    return dict(
        inputs=[torch.zeros(3, 2, 2, dtype=torch.uint8)] * len(images), data_samples=samples
    )


class Run:
    """As much of a runner as the hook looks at."""

    def __init__(self, tmp_path, hook, kind='FiniteOptimWrapper', **options):
        self.model, self.hook = build_model(), hook
        wrapper = wrapper_of(self.model, kind, CLIPS[0], **options)
        self.lines = []
        logger = SimpleNamespace(warning=self.lines.append)
        self.runner = SimpleNamespace(
            model=self.model, optim_wrapper=wrapper, work_dir=str(tmp_path), logger=logger, epoch=0,
            iter=0,
        )  # fmt: skip
        hook.before_train(self.runner)

    def train(self, scale=1.0, *images):
        data = batch(*images)
        self.hook.before_train_iter(self.runner, 0, data)
        loss = step(self.model, self.runner.optim_wrapper, scale)
        self.hook.after_train_iter(self.runner, 0, data, dict(loss=loss.detach()))
        self.runner.iter += 1


def test_statistics_are_put_back_and_the_batch_is_written(tmp_path):
    run = Run(tmp_path, FiniteStepHook())
    run.train(1.0, 1)
    before = copy.deepcopy(run.model.state_dict())
    run.train(NAN, 7, 9)
    assert equal(run.model.state_dict().values(), before.values())
    (line,) = run.lines
    assert line.startswith('Step 2 ')
    assert all(word in line for word in ('gradient norm nan', '7 (7.jpg)', '1 in a row'))

    folder = tmp_path / 'nonfinite'
    record = json.loads((folder / 'iter_2_rank_0.json').read_text())
    assert record['batches'][0]['losses'] == {'loss': 'nan'}
    assert [image['img_path'] for image in record['batches'][0]['images']] == ['7.jpg', '9.jpg']
    assert record['lr'] == {'lr': [0.01]}
    assert record['weights_finite'] is True
    (written,) = torch.load(folder / 'iter_2_rank_0.pt', weights_only=True)
    assert written['img_ids'] == [7, 9]
    assert [len(boxes) for boxes in written['bboxes']] == [1, 1]
    assert len(written['inputs']) == 2

    run.train(1.0, 1)  # goes on as if nothing had been
    assert not equal(run.model.state_dict().values(), before.values())
    assert run.runner.optim_wrapper.skipped_in_a_row == 0


def test_accumulated_batches_are_all_named_and_their_statistics_put_back(tmp_path):
    run = Run(tmp_path, FiniteStepHook(), accumulative_counts=2)
    before = copy.deepcopy(run.model.state_dict())
    run.train(NAN, 1)
    run.train(1.0, 2)
    assert equal(run.model.state_dict().values(), before.values())
    assert 'images 1 (1.jpg), 2 (2.jpg)' in run.lines[0]
    run.train(1.0, 3)
    run.train(1.0, 4)
    assert len(run.lines) == 1


def test_training_ends_after_the_stated_number_in_a_row(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('/x/epoch_3.pth')
    run = Run(tmp_path, FiniteStepHook(max_in_a_row=3, max_dumps=2))
    for scale in (NAN, NAN, 1.0, NAN, NAN):
        run.train(scale, 1)
    with pytest.raises(UserError, match='step 6: 3 steps in a row') as e:
        run.train(NAN, 5, 6)
    message = str(e.value)
    assert 'images 5 (5.jpg), 6 (6.jpg)' in message
    assert 'the last checkpoint is /x/epoch_3.pth' in message
    assert e.value.every_rank
    # the first two are written, the rest is only counted
    assert len(list((tmp_path / 'nonfinite').glob('*.json'))) == 2


def test_a_full_disk_does_not_end_what_may_go_on(tmp_path):
    (tmp_path / 'nonfinite').write_text('a file where the folder should be')
    run = Run(tmp_path, FiniteStepHook())
    run.train(NAN, 1)
    assert 'the batch could not be written' in run.lines[0]


def test_a_wrapper_that_applies_every_step_ends_training_at_once(tmp_path):
    run = Run(tmp_path, FiniteStepHook(), 'OptimWrapper')
    run.train(1.0, 1)
    with pytest.raises(UserError, match=r'step 2: loss nan; images 4 .*OptimWrapper'):
        run.train(NAN, 4)


def test_the_number_is_checked():
    with pytest.raises(ValueError, match='1 or more'):
        FiniteStepHook(max_in_a_row=0)


def distributed_step(rank, folder):
    os.environ.update(MASTER_ADDR='127.0.0.1')
    logging.disable()
    torch.set_num_threads(1)
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    model = nn.parallel.DistributedDataParallel(build_model().eval())
    wrapper = wrapper_of(model, clip_grad=CLIPS[0])
    step(model, wrapper, seed=rank)
    step(model, wrapper, NAN if rank == 1 else 1.0, seed=rank)
    skipped = wrapper.skipped
    step(model, wrapper, seed=rank)
    torch.save((skipped, wrapper.skipped, weights(model)), f'{folder}/{rank}.pt')


def test_processes_decide_the_same_where_only_one_has_nan(tmp_path):
    multiprocessing.start_processes(
        distributed_step, (str(tmp_path),), nprocs=2, start_method='fork'
    )
    first, second = (torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1))
    assert first[:2] == second[:2] == (1, 1)
    assert equal(first[2], second[2])
    assert all(p.isfinite().all() for p in first[2])
