"""Flags of a training: what follows from each."""

import pytest

from mpvit.config.flags import TrainingFlags
from mpvit.config.names import shipped_configs
from mpvit.config.reading import load_config


def changed(name, *options, **flags):
    return load_config(name, options, edit=TrainingFlags(**flags).apply)


def resizes(pipeline):
    """All sizes in a pipeline, in their order."""
    found = []
    for step in pipeline:
        for branch in step.get('transforms', []):
            found += resizes(branch)
        found += [step[key] for key in ('scale', 'scales', 'crop_size') if key in step]
    return found


@pytest.mark.parametrize(('epochs', 'drop'), [(12, 10), (50, 40), (1, 1), (100, 80)])
def test_epochs_move_the_drop(epochs, drop):
    config = changed('mpvit_s_ddetr_50e', epochs=epochs)
    (steps,) = config.param_scheduler
    assert config.train_cfg.max_epochs == steps.end == epochs
    assert steps.milestones == [drop]


def test_epochs_of_a_cosine_with_a_warm_up():
    config = changed('mpvit_t_ddetr_toy', epochs=28)
    warm_up, cosine = config.param_scheduler
    assert (warm_up.end, cosine.T_max, config.train_cfg.max_epochs) == (50, 28, 28)
    assert changed('mpvit_t_ddetr_toy', epochs=1).train_cfg.val_interval == 1


def test_image_size_changes_both_pipelines_by_one_factor():
    before, after = load_config('mpvit_s_ddetr_50e'), changed('mpvit_s_ddetr_50e', image_size=640)
    factor = 640 / 1333
    test = after.test_dataloader.dataset.pipeline
    assert resizes(test) == [(384, 640)]
    assert resizes(after.val_dataloader.dataset.pipeline) == resizes(test)
    old, new = (resizes(c.train_dataloader.dataset.pipeline) for c in (before, after))
    assert new[0][0] == (round(480 * factor), 640)
    assert new[1] == [round(size * factor) for size in old[1]]
    assert new[2] == (round(384 * factor), round(600 * factor))
    toy = changed('mpvit_t_ddetr_toy', image_size=256)
    assert resizes(toy.test_dataloader.dataset.pipeline) == [(256, 256)]
    assert toy.model.data_preprocessor.pad_size_divisor == 256


@pytest.mark.parametrize('name', [n for n in shipped_configs() if 'in1k' not in n])
def test_every_detector_takes_all_flags(name):
    config = changed(name, epochs=3, batch_size=5, image_size=320, lr=1e-3, freeze=1,
                     early_stop=4, workers=0, seed=7)  # fmt: skip
    assert config.train_dataloader.batch_size == 5
    assert max(resizes(config.test_dataloader.dataset.pipeline)[0]) == 320
    assert config.optim_wrapper.optimizer.lr == 1e-3
    assert not config.auto_scale_lr.enable
    assert config.model.backbone.frozen_stages == 1
    assert config.custom_hooks[-1].patience == 4
    assert not config.train_dataloader.persistent_workers
    assert config.randomness.seed == 7


def test_a_batch_that_is_to_be_found_leaves_the_one_of_the_config():
    assert changed('mpvit_s_ddetr_50e', batch_size='auto').train_dataloader.batch_size == 2


def test_overrides_have_the_last_word():
    config = changed('mpvit_s_ddetr_50e', 'train_cfg.max_epochs=9', epochs=3)
    assert config.train_cfg.max_epochs == 9
