"""mmengine's hooks: checkpoints, steps that are not finite, an AP of 0, inference, progress."""

from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def detector_of(runner: Runner) -> nn.Module:
    """The detector of a runner, without what wraps it for several processes or views."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
