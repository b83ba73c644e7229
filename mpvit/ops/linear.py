"""A linear layer that spares a pass over its output, for inference on the CPU."""

import torch.nn.functional as F
from torch import Tensor, nn


class PointwiseLinear(nn.Linear):
    """`nn.Linear` computed as a convolution of 1x1, with the same parameters.

    For a linear layer PyTorch first fills the output with the bias and then reads it again while it
    multiplies; a convolution adds the bias as it goes (docs/inference.md).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Transform ``(..., in_features)`` to ``(..., out_features)``."""
        # rows as the pixels of one channels-last line, (1, in_features, 1, rows); a view
        line = input.reshape(1, 1, -1, self.in_features).permute(0, 3, 1, 2)
        output = F.conv2d(line, self.weight[:, :, None, None], self.bias)
        return output.permute(0, 2, 3, 1).reshape(*input.shape[:-1], self.out_features)


def use_pointwise_linear(model: nn.Module) -> None:
    """Turn every plain `nn.Linear` of a model into a `PointwiseLinear`, in place.

    Args:
        model: Float32 model on the CPU, for inference. Parameters and their names stay.
    """
    for module in model.modules():
        if type(module) is nn.Linear:  # subclasses have their own forward
            module.__class__ = PointwiseLinear
