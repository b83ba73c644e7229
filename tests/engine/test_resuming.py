"""What a resumed training takes from its checkpoint is said where the config says otherwise."""

import pytest

from mpvit.engine.resume import without_effect

THEN = dict(
    optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999))),
    param_scheduler=[dict(type='LinearLR', end=50), dict(type='MultiStepLR', milestones=[40])],
    auto_scale_lr=dict(enable=True, base_batch_size=16),
    randomness=dict(seed=1),
    train_cfg=dict(max_epochs=50),
)


def test_what_is_the_same_is_not_mentioned():
    now = dict(THEN, train_cfg=dict(max_epochs=60), randomness=dict(seed=None))
    now['optim_wrapper'] = dict(optimizer=dict(type='AdamW', lr=1e-4, betas=[0.9, 0.999]))
    assert list(without_effect(THEN, now)) == []
    assert list(without_effect({}, {})) == []


@pytest.mark.parametrize(('change', 'said'), [
    (dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.5, betas=(0.9, 0.999)))),
     'optim_wrapper.optimizer.lr = 0.5 (stays 0.0001)'),
    (dict(param_scheduler=[THEN['param_scheduler'][0], dict(type='MultiStepLR', milestones=[55])]),
     'param_scheduler.1.milestones = [55] (stays [40])'),
    (dict(auto_scale_lr=dict(enable=False, base_batch_size=16)),
     'auto_scale_lr.enable = False (stays True)'),
    (dict(randomness=dict(seed=2)), 'randomness.seed = 2 (stays 1)'),
])  # fmt: skip
def test_what_stays_is_named(change, said):
    assert list(without_effect(THEN, {**THEN, **change})) == [said]


def test_another_schedule_altogether():
    (said,) = without_effect(THEN, {**THEN, 'param_scheduler': [dict(type='CosineAnnealingLR')]})
    assert said.startswith('param_scheduler = [')
