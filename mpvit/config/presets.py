"""What flags of the command line make of a config: precision, trackers, mirror images."""

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.device import is_cuda_available, is_musa_available, is_npu_available

from mpvit.config.reading import leaf_datasets
from mpvit.config.stored import config_name
from mpvit.errors import UserError, optional

_TRACKERS = dict(tensorboard='TensorboardTracker', wandb='WandbTracker', mlflow='MLflowTracker')


def enable_amp(cfg: Config, amp: str) -> None:
    """Train in mixed precision.

    Args:
        cfg: Config, changed in place.
        amp: 'bf16' or 'fp16' (on a GPU only); 'auto' for fp16 on a GPU and bf16 on a CPU.

    Raises:
        UserError: It is none of them, or fp16 without a GPU.
    """
    gpu = is_cuda_available() or is_npu_available() or is_musa_available()
    if amp == 'auto':
        amp = 'fp16' if gpu else 'bf16'
    if amp == 'fp16':
        if not gpu:
            raise UserError('--amp fp16 needs a GPU and none was found; use --amp bf16')
        cfg.optim_wrapper.update(type='FiniteAmpOptimWrapper', dtype='float16')
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    elif amp == 'bf16':
        for key in ('loss_scale', 'dtype'):  # of an AmpOptimWrapper
            cfg.optim_wrapper.pop(key, None)
        cfg.optim_wrapper.type = 'AutocastOptimWrapper'
    else:
        raise UserError(f'--amp {amp}: choose bf16 or fp16')


def use_trackers(cfg: Config, track: Sequence[str] = (), continued: bool = False) -> None:
    """Record a training also elsewhere.

    Args:
        cfg: Changed in place.
        track: 'wandb', 'mlflow', 'tensorboard', beside those of the config.
        continued: The training goes on from a checkpoint, and so do its records.

    Raises:
        UserError: A package is not installed.
    """
    for name in track:
        if name != 'tensorboard':
            optional(name, f'--track {name} would', 'tracking')
    backends = _backends(cfg)
    present = {backend.type for backend in backends}
    added = [ConfigDict(type=_TRACKERS[name]) for name in track]
    backends += [backend for backend in added if backend.type not in present]
    for backend in backends:
        if backend.type in _TRACKERS.values():
            backend.continued = continued
    _set_backends(cfg, backends)


def without_trackers(cfg: Config) -> None:
    """Record nothing elsewhere: a test has no curves. The config is changed in place."""
    _set_backends(cfg, [b for b in _backends(cfg) if b.type not in _TRACKERS.values()])


def _backends(cfg: Config) -> list[ConfigDict]:
    return list((cfg.get('visualizer') or {}).get('vis_backends') or [])


def _set_backends(cfg: Config, backends: list[ConfigDict]) -> None:
    if cfg.get('visualizer'):
        cfg.visualizer.vis_backends = backends


def enable_tta(cfg: Config) -> None:
    """Evaluate every image and its mirror image; the rest of the test pipeline stays as it is."""
    cfg.model = tta_model(cfg, cfg.model)
    for dataset in leaf_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = tta_pipeline(cfg, dataset.pipeline)


def tta_model(cfg: Config, module: Any) -> ConfigDict:
    """Config of the model that merges what a detector finds in several views of an image.

    The config's ``tta_model`` says how they are merged; ``module`` is the detector or its config.

    Raises:
        UserError: The config has no ``tta_model``.
    """
    if 'tta_model' not in cfg:
        raise UserError(f'--tta: {config_name(cfg)} has no tta_model')
    return ConfigDict(**cfg.tta_model, module=module)


def tta_pipeline(cfg: Config, pipeline: Sequence[ConfigDict]) -> list[ConfigDict]:
    """The config's ``tta_pipeline``, or a test pipeline with the mirror image beside every image.

    What comes before the annotations stays as it is.
    """
    if cfg.get('tta_pipeline'):
        return list(cfg.tta_pipeline)
    last = ('LoadAnnotations', 'PackDetInputs')
    flips = [ConfigDict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    packing = [copy.deepcopy(step) for step in pipeline if step.type in last]
    packing[-1].meta_keys = (*packing[-1].get('meta_keys', ()), 'flip', 'flip_direction')
    augmented = ConfigDict(type='TestTimeAug', transforms=[flips, *([step] for step in packing)])
    return [*(step for step in pipeline if step.type not in last), augmented]
