"""Dropout on the CPU in one pass, which keeps no mask.

PyTorch draws a mask on the CPU one number at a time from one generator and stores it as floats:
in the encoder of a detector it took a sixth of a training step. Here whether an element is kept is
a function of its place and of a key drawn from torch's generator, so all threads draw at once and
the backward pass draws the same again. `torch.manual_seed` decides as ever, and decides the same
in every precision.

Contiguous float32, bfloat16 and float16 on the CPU run here; anything else is left to PyTorch.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

try:
    from mpvit.ops.elements import DTYPES, flat, load, store
    from mpvit.ops.threads import chunks, compiled, run
except ImportError:  # no Numba
    AVAILABLE = False
else:
    AVAILABLE = True

_INLINE = 1 << 16  # elements below which one thread is faster
_PER_THREAD = 4


def relu_dropout(input: Tensor, p: float) -> Tensor:
    """``dropout(relu(input))``, with ``p`` in [0, 1].

    ``input`` is overwritten: nobody else may need it any more.
    """
    if not _is_ours(input):
        return F.dropout(F.relu_(input), p)
    output: Tensor = _ReluDropout.apply(input, p)
    return output


def add_dropout(identity: Tensor, input: Tensor, p: float, training: bool) -> Tensor:
    """``identity + dropout(input)``, with ``p`` in [0, 1]; of the wider type of the two.

    ``input`` is overwritten where it helps: nobody else may need it any more.
    """
    if not (training and p):
        return identity + input
    same = identity.shape == input.shape  # the kernel does not check where it reads
    if not (same and _is_ours(input) and _is_ours(identity)):
        return identity + F.dropout(input, p)
    output: Tensor = _AddDropout.apply(identity, input, p)
    return output


def dropout_product(weights: Tensor, value: Tensor, p: float) -> Tensor:
    """``dropout(weights) @ value``, with ``p`` in [0, 1]; of the type of ``value``."""
    if not _is_ours(weights):
        return F.dropout(weights, p).to(value.dtype) @ value
    output: Tensor = _DropoutProduct.apply(weights, value, p)
    return output


def _is_ours(tensor: Tensor) -> bool:
    return (
        AVAILABLE
        and tensor.device.type == 'cpu'
        and tensor.dtype in DTYPES
        and tensor.is_contiguous()
        and not torch.compiler.is_compiling()
    )


class _ReluDropout(torch.autograd.Function):
    """An element of the output is positive where it was kept and positive: no other mask."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, p: float) -> Tensor:
        ctx.scale = _scale(p)
        _each(_relu_dropout, input, flat(input), _draw(p))
        ctx.mark_dirty(input)
        ctx.save_for_backward(input)
        return input

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        grad = grad.contiguous()
        result = torch.empty_like(grad)
        scale = np.float32(ctx.scale)
        _each(_where_positive, grad, flat(grad), flat(output), flat(result), scale)
        return result, None


class _AddDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, identity: Tensor, input: Tensor, p: float) -> Tensor:
        ctx.draw, ctx.dtype = _draw(p), input.dtype
        output = input.to(torch.result_type(identity, input))  # differ under autocast at most
        if output is input:
            ctx.mark_dirty(input)
        _each(_add_dropout, input, flat(identity), flat(output), ctx.draw)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad = grad.contiguous()
        return grad, _dropped(grad, ctx.draw, ctx.dtype), None


class _DropoutProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, value: Tensor, p: float) -> Tensor:
        ctx.draw = _draw(p)
        ctx.save_for_backward(weights, value)
        return _dropped(weights, ctx.draw).to(value.dtype) @ value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, value = ctx.saved_tensors
        dropped = _dropped(weights, ctx.draw).to(value.dtype)
        grad_weights = (grad @ value.transpose(-1, -2)).to(weights.dtype)
        return _dropped(grad_weights, ctx.draw), dropped.transpose(-1, -2) @ grad, None


def _dropped(input: Tensor, draw: tuple[Any, ...], dtype: torch.dtype | None = None) -> Tensor:
    result = torch.empty_like(input, dtype=dtype)
    _each(_dropout, input, flat(input), flat(result), draw)
    return result


def _scale(p: float) -> float:
    return 1 / (1 - p) if p < 1 else 0.0


def _draw(p: float) -> tuple[Any, ...]:
    """What decides on the elements of a tensor.

    Returns:
        Two keys from torch's generator, the hash from which on an element is dropped, and what the
        others are multiplied by.
    """
    first, second = torch.randint(1 << 32, (2,)).tolist()
    limit = min(round((1 - p) * 2**32), 2**32 - 1)
    return np.uint32(first), np.uint32(second), np.uint32(limit), np.float32(_scale(p))


def _each(kernel: Any, like: Tensor, *arguments: Any) -> None:
    count = like.numel()
    run(kernel, arguments, chunks(count, _PER_THREAD), inline=count < _INLINE)


if AVAILABLE:
    _ZERO = np.float32(0)  # a plain 0 would make Numba compare in float64

    # Slices and conditional values rather than branches: so LLVM takes eight elements at a time.

    @compiled
    def _hash(index: Any, first: Any, second: Any) -> Any:
        """32 bits that look random; an integer hash by Wellons, with a key at two places."""
        x = np.uint32(index + first)
        x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
        x = np.uint32(x ^ second)
        x = np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
        return np.uint32(x ^ (x >> np.uint32(16)))

    @compiled
    def _relu_dropout(x: Any, draw: Any, start: int, stop: int) -> None:
        first, second, limit, scale = draw
        x, first = x[start:stop], np.uint32(first + np.uint32(start))
        for i in range(x.size):
            dropped = _hash(np.uint32(i), first, second) >= limit
            value = load(x, i)
            # NaN stays NaN
            store(x, i, _ZERO if dropped | (value <= _ZERO) else value * scale)

    @compiled
    def _where_positive(
        grad: Any, output: Any, result: Any, scale: Any, start: int, stop: int
    ) -> None:
        grad, output, result = grad[start:stop], output[start:stop], result[start:stop]
        for i in range(grad.size):
            store(result, i, _ZERO if load(output, i) <= _ZERO else load(grad, i) * scale)

    @compiled
    def _add_dropout(identity: Any, x: Any, draw: Any, start: int, stop: int) -> None:
        first, second, limit, scale = draw
        identity, x = identity[start:stop], x[start:stop]
        first = np.uint32(first + np.uint32(start))
        for i in range(x.size):
            dropped = _hash(np.uint32(i), first, second) >= limit
            store(x, i, load(identity, i) + (_ZERO if dropped else load(x, i) * scale))

    @compiled
    def _dropout(x: Any, result: Any, draw: Any, start: int, stop: int) -> None:
        first, second, limit, scale = draw
        x, result, first = x[start:stop], result[start:stop], np.uint32(first + np.uint32(start))
        for i in range(x.size):
            dropped = _hash(np.uint32(i), first, second) >= limit
            store(result, i, _ZERO if dropped else load(x, i) * scale)
