"""A moving average of the weights, for mmengine's `EMAHook`."""

from typing import Any

from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from torch import nn


@MODELS.register_module()
class SharedWeightsEMA(ExponentialMovingAverage):
    """mmengine's average over parameters and buffers, with shared weights averaged once a step.

    mmengine goes through the state dict, in which the layers that all decoder layers share stand
    several times, and so averages them several times a step.

    Args:
        model: The detector.
        **kwargs: As for `ExponentialMovingAverage`.
    """

    avg_parameters: dict[str, Any]

    def __init__(self, model: nn.Module, **kwargs: Any) -> None:
        super().__init__(model, update_buffers=True, **kwargs)
        once = {id(p): name for name, p in reversed(self.module.state_dict(keep_vars=True).items())}
        names = set(once.values())
        self.avg_parameters = {n: p for n, p in self.avg_parameters.items() if n in names}
