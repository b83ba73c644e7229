"""Test-time augmentation: the image and its mirror image."""

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from mpvit.errors import UserError


def tta_model(cfg: Config, module: Any) -> ConfigDict:
    """Config of the model that merges what a detector finds in several views of an image.

    Args:
        cfg: Config, whose ``tta_model`` says how they are merged.
        module: The detector, or its config.

    Raises:
        UserError: The config has no ``tta_model``.
    """
    if 'tta_model' not in cfg:
        raise UserError(f'--tta: config {cfg.filename} has no tta_model')
    return ConfigDict(**cfg.tta_model, module=module)


def tta_pipeline(cfg: Config, pipeline: Sequence[ConfigDict]) -> list[ConfigDict]:
    """The config's ``tta_pipeline``, or a pipeline with the mirror image beside every image.

    Args:
        cfg: Config.
        pipeline: Test pipeline; what comes before the annotations stays as it is.
    """
    if cfg.get('tta_pipeline'):
        return list(cfg.tta_pipeline)
    last = ('LoadAnnotations', 'PackDetInputs')
    flips = [ConfigDict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    packing = [copy.deepcopy(step) for step in pipeline if step.type in last]
    packing[-1].meta_keys = (*packing[-1].get('meta_keys', ()), 'flip', 'flip_direction')
    augmented = ConfigDict(type='TestTimeAug', transforms=[flips, *([step] for step in packing)])
    return [*(step for step in pipeline if step.type not in last), augmented]
