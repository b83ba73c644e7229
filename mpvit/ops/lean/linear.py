"""Linear layers and MLPs with fewer passes over memory, for float32 on the CPU.

For a linear layer PyTorch first fills the output with the bias and then reads it again while it
multiplies; a convolution adds the bias as it goes (docs/precision.md). Anything but float32 on the
CPU, and whatever is traced or compiled, is computed as ever.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class PointwiseLinear(nn.Linear):
    """`nn.Linear` computed as a convolution of 1x1, with the same parameters."""

    def forward(self, input: Tensor) -> Tensor:
        """Transform ``(..., in_features)`` to ``(..., out_features)``."""
        if not is_plain_float32(input) or not input.numel():
            return super().forward(input)
        output: Tensor = _Linear.apply(input, self.weight, self.bias)
        return output


def use_pointwise_linear(
    model: nn.Module, kinds: tuple[type[nn.Linear], ...] = (nn.Linear,)
) -> None:
    """Turn every plain linear layer of a model into a `PointwiseLinear`, in place.

    Args:
        model: Parameters and their names stay.
        kinds: Classes that do the same as `nn.Linear`; layers of exactly these change.
    """
    for module in model.modules():
        if type(module) in kinds:  # subclasses have their own forward
            module.__class__ = PointwiseLinear


def is_plain_float32(tensor: Tensor) -> bool:
    """Whether a tensor is float32 on the CPU, and nothing is traced, compiled or cast."""
    return (
        tensor.device.type == 'cpu'
        and tensor.dtype == torch.float32
        and not torch.is_autocast_enabled('cpu')
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def linear_relu(input: Tensor, layer: nn.Linear) -> Tensor:
    """``relu(layer(input))``, in one pass where nothing has to be differentiated.

    Args:
        input: Shape ``(..., in_features)``.
        layer: A linear layer.
    """
    if _is_fusible(input, layer):
        return _convolved(input, layer.weight, layer.bias, 'relu')
    return F.relu_(layer(input))


def norm_linear(input: Tensor, norm: nn.LayerNorm, layer: nn.Linear) -> Tensor:
    """``layer(norm(input))``; the normalised input is not kept for the backward pass.

    Args:
        input: Shape ``(..., in_features)``.
        norm: Layer norm over the last dimension.
        layer: A linear layer with a bias.
    """
    if not torch.is_grad_enabled() or not is_plain_float32(input):
        return layer(norm(input))
    output: Tensor = _NormLinear.apply(
        input, norm.weight, norm.bias, layer.weight, layer.bias, norm.eps
    )
    return output


def norm_mlp_gelu(input: Tensor, norm: nn.LayerNorm, expand: Any, contract: Any) -> Tensor:
    """``contract(gelu(expand(norm(input))))``.

    Without gradients the activation is applied as the product leaves the registers. With them, what
    takes a pass to compute again is not kept (docs/benchmarks.md).

    Args:
        input: Shape ``(..., in_features)``.
        norm: Layer norm over the last dimension.
        expand: First linear layer, with a bias.
        contract: Second linear layer, with a bias.
    """
    if _is_fusible(input, expand):
        hidden = _convolved(norm(input), expand.weight, expand.bias, 'gelu', 'none')
        return contract(hidden)
    if not is_plain_float32(input):
        return contract(F.gelu(expand(norm(input))))
    output: Tensor = _NormMlpGelu.apply(
        input,
        norm.weight,
        norm.bias,
        expand.weight,
        expand.bias,
        contract.weight,
        contract.bias,
        norm.eps,
    )
    return output


def _is_fusible(input: Tensor, layer: Any) -> bool:
    """Whether oneDNN may be asked for a product with an activation, which has no gradient."""
    return (
        not torch.is_grad_enabled()
        and is_plain_float32(input)
        and layer.weight.dtype == torch.float32
        and input.numel() > 0
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, '_convolution_pointwise')
    )


def _convolved(
    input: Tensor, weight: Tensor, bias: Tensor | None, activation: str = '', variant: str = ''
) -> Tensor:
    """A linear layer as a convolution of 1x1, with an activation by oneDNN if one is named."""
    # rows as the pixels of one channels-last line, (1, in_features, 1, rows); a view
    line = input.reshape(1, 1, -1, weight.shape[1]).permute(0, 3, 1, 2)
    kernel = weight[:, :, None, None]
    if activation:
        output = torch.ops.mkldnn._convolution_pointwise(
            line, kernel, bias, [0, 0], [1, 1], [1, 1], 1, activation, [], variant
        )
    else:
        output = F.conv2d(line, kernel, bias)
    return output.permute(0, 2, 3, 1).reshape(*input.shape[:-1], weight.shape[0])


def _normed(input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
    """Normalised input, mean and reciprocal deviation."""
    return torch.native_layer_norm(input, weight.shape, weight, bias, eps)


def _norm_gradients(
    grad: Tensor, input: Tensor, stats: Sequence[Tensor], weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias of a layer norm."""
    return torch.ops.aten.native_layer_norm_backward(
        grad.view(input.shape), input, weight.shape, *stats, weight, bias, (True, True, True)
    )


def _layer_gradients(rows: Tensor, input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias of a linear layer; ``rows`` is that of its output."""
    return rows.t() @ input.reshape(-1, weight.shape[1]), rows.sum(0)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        # `data`: to autograd not a view, so that what follows may work in place
        return _convolved(input, weight, bias).data

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        wants_input, wants_weight, wants_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, weight.shape[0])
        return (
            (rows @ weight).view(input.shape) if wants_input else None,
            rows.t() @ input.reshape(-1, weight.shape[1]) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(input, scale, shift, weight)
        ctx.eps = eps
        return _convolved(_normed(input, scale, shift, eps)[0], weight, bias).data

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, scale, shift, weight = ctx.saved_tensors
        normed, *stats = _normed(input, scale, shift, ctx.eps)
        rows = grad.reshape(-1, weight.shape[0])
        layer = _layer_gradients(rows, normed, weight)
        return *_norm_gradients(rows @ weight, input, stats, scale, shift), *layer, None


class _NormMlpGelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        eps: float,
    ) -> Tensor:
        before = _convolved(_normed(input, scale, shift, eps)[0], weight1, bias1)
        ctx.save_for_backward(input, scale, shift, before, weight1, weight2)
        ctx.eps = eps
        return _convolved(F.gelu(before), weight2, bias2).data

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, scale, shift, before, weight1, weight2 = ctx.saved_tensors
        before = before.view(-1, weight1.shape[0])
        rows = grad.reshape(-1, weight2.shape[0])
        second = _layer_gradients(rows, F.gelu(before), weight2)
        rows = torch.ops.aten.gelu_backward(rows @ weight2, before)
        normed, *stats = _normed(input, scale, shift, ctx.eps)
        first = _layer_gradients(rows, normed, weight1)
        norm = _norm_gradients(rows @ weight1, input, stats, scale, shift)
        return *norm, *first, *second, None
