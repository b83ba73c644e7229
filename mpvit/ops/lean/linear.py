"""Linear layers and MLPs with fewer passes over memory on the CPU.

For a linear layer PyTorch first fills the output with the bias and then reads it again while it
multiplies; a convolution adds the bias as it goes (docs/precision.md). It does so in float32, and
in bfloat16 and float16 where oneDNN has them, also under autocast. Anything else, and whatever is
traced or compiled, is computed as ever.
"""

import functools
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
        if not is_served(input, self):
            return super().forward(input)
        return linear_after(_unchanged, self, input)


def product_dtype(tensor: Tensor) -> torch.dtype | None:
    """The precision of a product with a tensor, or None where it is left to PyTorch.

    That is its own or autocast's, on the CPU, where nothing is traced or compiled.
    """
    if (
        tensor.device.type != 'cpu'
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or tensor.dtype not in _PROBES
    ):
        return None
    dtype = torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else tensor.dtype
    return dtype if _is_computed(dtype) else None


# what tells whether oneDNN computes in a precision here
_PROBES = {
    torch.float32: None,
    torch.bfloat16: '_is_mkldnn_bf16_supported',
    torch.float16: '_is_mkldnn_fp16_supported',
}


@functools.cache
def _is_computed(dtype: torch.dtype) -> bool:
    probe = _PROBES[dtype]
    if probe is None:
        return True
    # not every build of torch has the probe
    return bool(torch.backends.mkldnn.is_available() and getattr(torch.ops.mkldnn, probe)())


def linear_relu(input: Tensor, layer: nn.Linear) -> Tensor:
    """``relu(layer(input))``, in one pass where nothing has to be differentiated."""
    if _is_fusible(input, layer):
        return _convolved(input, *_parameters(input, layer), 'relu')
    return F.relu_(layer(input))


def norm_linear(input: Tensor, norm: nn.LayerNorm, layer: Any) -> Tensor:
    """``layer(norm(input))``; the normalised input is not kept for the backward pass."""
    if not torch.is_grad_enabled() or not is_served(input, layer) or norm.bias is None:
        return layer(norm(input))
    return linear_after(_layer_norm(norm.eps), layer, input, norm.weight, norm.bias)


def sum_linears(first: Tensor, second: Tensor, layers: Sequence[nn.Linear]) -> Sequence[Tensor]:
    """``layer(first + second)`` of each layer, as one product; the sum is not kept.

    Both inputs have the same shape.
    """
    if not torch.is_grad_enabled() or not all(is_served(first, layer) for layer in layers):
        total = first + second
        return [layer(total) for layer in layers]
    dtype = product_dtype(first)
    weight = torch.cat([layer.weight.to(dtype) for layer in layers])
    bias = torch.cat([layer.bias.to(dtype) for layer in layers])
    output: Tensor = _Linear.apply(_sum, weight, bias, first, second)
    return output.split([layer.out_features for layer in layers], dim=-1)


def norm_mlp_gelu(input: Tensor, norm: nn.LayerNorm, expand: Any, contract: Any) -> Tensor:
    """``contract(gelu(expand(norm(input))))``, where both are linear layers.

    Without gradients the activation is applied as the product leaves the registers. With them, what
    takes a pass to compute again is not kept (docs/benchmarks.md).
    """
    if _is_fusible(input, expand):
        hidden = _convolved(norm(input), *_parameters(input, expand), 'gelu', 'none')
        return contract(hidden)
    hidden = norm_linear(input, norm, expand)
    if not is_served(hidden, contract):
        return contract(F.gelu(hidden))
    return linear_after(_gelu, contract, hidden)


def is_served(input: Tensor, layer: Any) -> bool:
    """Whether a product of ``input`` is computed here, and not left to PyTorch."""
    dtype = product_dtype(input)
    return (
        dtype is not None
        and isinstance(layer, nn.Linear)
        and input.numel() > 0
        and (dtype == layer.weight.dtype or torch.is_autocast_enabled('cpu'))
    )


def _is_fusible(input: Tensor, layer: Any) -> bool:
    """Whether oneDNN may be asked for a product with an activation, which has no gradient."""
    return (
        not torch.is_grad_enabled()
        and is_served(input, layer)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, '_convolution_pointwise')
    )


def _parameters(input: Tensor, layer: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer in the precision of its product with ``input``."""
    dtype = product_dtype(input)
    return layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)


def _convolved(
    input: Tensor, weight: Tensor, bias: Tensor | None, activation: str = '', variant: str = ''
) -> Tensor:
    """A linear layer as a convolution of 1x1, with an activation by oneDNN if one is named."""
    input = input.to(weight.dtype)  # under autocast they differ
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
Value = tuple[Tensor, Callable[[Tensor], Sequence[Tensor]]]


def _unchanged(input: Tensor) -> Value:
    return input, lambda grad: (grad,)


def _sum(first: Tensor, second: Tensor) -> Value:
    return first + second, lambda grad: (grad, grad)


def _gelu(input: Tensor) -> Value:
    return F.gelu(input), lambda grad: (torch.ops.aten.gelu_backward(grad, input),)


def _layer_norm(eps: float) -> Callable[..., Value]:
    def normed(input: Tensor, weight: Tensor, bias: Tensor) -> Value:
        shape = weight.shape
        output, *stats = torch.native_layer_norm(input, shape, weight, bias, eps)
        return output, lambda grad: torch.ops.aten.native_layer_norm_backward(
            grad, input, shape, *stats, weight, bias, (True, True, True)
        )

    return normed


def linear_after(
    before: Callable[..., Value], layer: Any, input: Tensor, *parameters: Tensor
) -> Tensor:
    """``layer(before(input, *parameters))``, differentiable.

    Kept for the backward pass are the arguments of ``before``, and not what it returns. Under
    autocast the weights are cast here, once for both passes.
    """
    weight, bias = _parameters(input, layer)
    output: Tensor = _Linear.apply(before, weight, bias, input, *parameters)
    return output


class _Linear(torch.autograd.Function):
    """``linear(before(input, *parameters))``; the backward pass computes ``before`` again."""

    @staticmethod
    def forward(
        ctx: Any,
        before: Callable[..., Value],
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
        columns = value.to(weight.dtype).reshape(-1, weight.shape[1])
        of_weight = rows.t() @ columns if wants_weight else None
        of_bias = rows.sum(0) if wants_bias else None
        shape, dtype = value.shape, value.dtype
        del value, columns  # which are as large as what follows
        if not any(wants_inputs):
            return None, of_weight, of_bias, *(None for _ in inputs)
        of_value = (rows @ weight).view(shape).to(dtype)
        return None, of_weight, of_bias, *gradients(of_value)
