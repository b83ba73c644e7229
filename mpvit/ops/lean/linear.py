"""Linear layers and MLPs with fewer passes over memory, for float32 on the CPU.

For a linear layer PyTorch first fills the output with the bias and then reads it again while it
multiplies; a convolution adds the bias as it goes (docs/precision.md). Anything but float32 on the
CPU, and whatever is traced or compiled, is computed as ever.
"""

from collections.abc import Callable, Sequence
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
        output: Tensor = _Linear.apply(_unchanged, self.weight, self.bias, input)
        return output


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
    """``relu(layer(input))``, in one pass where nothing has to be differentiated."""
    if _is_fusible(input, layer):
        return _convolved(input, layer.weight, layer.bias, 'relu')
    return F.relu_(layer(input))


def norm_linear(input: Tensor, norm: nn.LayerNorm, layer: Any) -> Tensor:
    """``layer(norm(input))``; the normalised input is not kept for the backward pass."""
    if not torch.is_grad_enabled() or not is_plain_float32(input):
        return layer(norm(input))
    output: Tensor = _Linear.apply(
        _layer_norm(norm.eps), layer.weight, layer.bias, input, norm.weight, norm.bias
    )
    return output


def norm_mlp_gelu(input: Tensor, norm: nn.LayerNorm, expand: Any, contract: Any) -> Tensor:
    """``contract(gelu(expand(norm(input))))``, where both are linear layers.

    Without gradients the activation is applied as the product leaves the registers. With them, what
    takes a pass to compute again is not kept (docs/benchmarks.md).
    """
    if _is_fusible(input, expand):
        hidden = _convolved(norm(input), expand.weight, expand.bias, 'gelu', 'none')
        return contract(hidden)
    hidden = norm_linear(input, norm, expand)
    if not is_plain_float32(input):
        return contract(F.gelu(hidden))
    output: Tensor = _Linear.apply(_gelu, contract.weight, contract.bias, hidden)
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


# Of what comes before a linear layer: its value, and a function from the gradient of the value to
# the gradients of the arguments.
_Value = tuple[Tensor, Callable[[Tensor], Sequence[Tensor]]]


def _unchanged(input: Tensor) -> _Value:
    return input, lambda grad: (grad,)


def _gelu(input: Tensor) -> _Value:
    return F.gelu(input), lambda grad: (torch.ops.aten.gelu_backward(grad, input),)


def _layer_norm(eps: float) -> Callable[..., _Value]:
    def normed(input: Tensor, weight: Tensor, bias: Tensor) -> _Value:
        shape = weight.shape
        output, *stats = torch.native_layer_norm(input, shape, weight, bias, eps)
        return output, lambda grad: torch.ops.aten.native_layer_norm_backward(
            grad, input, shape, *stats, weight, bias, (True, True, True)
        )

    return normed


class _Linear(torch.autograd.Function):
    """``linear(before(input, *parameters))``; the backward pass computes ``before`` again."""

    @staticmethod
    def forward(
        ctx: Any,
        before: Callable[..., _Value],
        weight: Tensor,
        bias: Tensor | None,
        input: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.before = before
        ctx.save_for_backward(weight, input, *parameters)
        # `data`: to autograd not a view, so that what follows may work in place
        return _convolved(before(input, *parameters)[0], weight, bias).data

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *inputs = ctx.saved_tensors
        _, wants_weight, wants_bias, *wants_inputs = ctx.needs_input_grad
        rows = grad.reshape(-1, weight.shape[0])
        value, gradients = ctx.before(*inputs)
        of_weight = rows.t() @ value.reshape(-1, weight.shape[1]) if wants_weight else None
        of_bias = rows.sum(0) if wants_bias else None
        del value  # which is as large as what follows
        if not any(wants_inputs):
            return None, of_weight, of_bias, *(None for _ in inputs)
        return None, of_weight, of_bias, *gradients((rows @ weight).view(inputs[0].shape))
