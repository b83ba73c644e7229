"""Batch norm and the activation after it on the CPU, without keeping what is between them.

PyTorch keeps a copy of the norm's output for the gradient of an activation in place. The output is
one pass over the norm's input, which is kept anyway.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from mpvit.ops.lean.linear import product_dtype


def norm_hardswish(input: Tensor, norm: nn.Module) -> Tensor:
    """``hardswish(norm(input))`` of maps ``(B, C, H, W)``."""
    if not torch.is_grad_enabled() or product_dtype(input) is None or not _is_simple(norm):
        return F.hardswish(norm(input), inplace=True)
    output: Tensor = _NormHardswish.apply(input, norm, norm.weight, norm.bias)
    return output


def _is_simple(norm: Any) -> bool:
    """A batch norm of one process, as it mostly is."""
    return (
        isinstance(norm, _BatchNorm)
        and type(norm).forward is _BatchNorm.forward
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


class _NormHardswish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, norm: Any, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.training, ctx.eps = norm.training, norm.eps
        ctx.running = norm.running_mean, norm.running_var
        if norm.training:
            norm.num_batches_tracked.add_(1)
        output, *stats = torch.ops.aten.native_batch_norm(
            input, weight, bias, *ctx.running, norm.training, norm.momentum, norm.eps
        )
        ctx.save_for_backward(input, weight, bias, *stats)
        return F.hardswish(output, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, bias, mean, inverse_std = ctx.saved_tensors
        if ctx.training:
            statistics = mean, inverse_std**-2 - ctx.eps
        else:
            statistics = ctx.running
        normed = torch.ops.aten.native_batch_norm(
            input, weight, bias, *statistics, False, 0.0, ctx.eps
        )[0]
        grad = torch.ops.aten.hardswish_backward(grad, normed)
        del normed
        gradients = torch.ops.aten.native_batch_norm_backward(
            grad,
            input,
            weight,
            *ctx.running,
            mean,
            inverse_std,
            ctx.training,
            ctx.eps,
            (ctx.needs_input_grad[0], True, True),
        )
        return gradients[0], None, *gradients[1:]
