"""Factorized attention with relative positions (CoaT, eq. 6) with fewer passes over the tokens.

``q (softmax(k)^T v) / sqrt(d) + q * position`` of every head. The plain formulation copies query,
weights and value head by head and keeps the copies for the backward pass. For large maps in float32
on the CPU, products run on views, image by image, the position term is added on the way, and the
gradients of query, key and value are written where they belong.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpvit.ops.lean.linear import is_plain_float32

_LARGE = 1 << 17  # numbers of an image's qkv from which to go image by image
_NARROW = 16  # channels of a head below which a product per head takes longer than one for all


def factorized_attention(qkv: Tensor, positions: list[Tensor], num_heads: int) -> Tensor:
    """Attention of linear cost, softmax over the tokens.

    Args:
        qkv: Query, key and value, shape ``(B, N, 3 * C)``.
        positions: Position encodings of the values by groups of channels, shapes
            ``(B, N, C_group)`` that add up to ``C``; they multiply the unscaled query.
        num_heads: Heads; channels are head-major.

    Returns:
        Tensor of shape ``(B, N, C)``.
    """
    if is_plain_float32(qkv) and qkv[0].numel() >= _LARGE:
        output: Tensor = _FactorizedAttention.apply(qkv, num_heads, *positions)
        return output
    query, key, value = qkv.chunk(3, dim=-1)
    attended = _attended(query, key.softmax(dim=1), value, num_heads)
    return attended + query * torch.cat(positions, dim=-1)


def _attended(query: Tensor, weights: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """``query (weights^T value)`` of every head, scaled; all tensors ``(B, N, C)``."""
    channels = query.shape[-1]
    scale = (channels // num_heads) ** -0.5
    # on the meta device nothing is computed, only counted: there by head, as published
    if channels < _NARROW * num_heads and not query.is_meta:
        context = scale * (weights.transpose(1, 2) @ value)
        return query @ context.masked_fill(_strangers(channels, num_heads, query.device), 0)
    # (B, N, C) -> (B, heads, N, C / heads), a view
    query, weights, value = (
        t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (query, weights, value)
    )
    context = scale * (weights.transpose(2, 3) @ value)  # (B, heads, C / heads, C / heads)
    return (query @ context).transpose(1, 2).flatten(2)


def _strangers(channels: int, num_heads: int, device: torch.device) -> Tensor:
    """Which pairs of channels belong to different heads, shape ``(C, C)``."""
    head = torch.arange(num_heads, device=device).repeat_interleave(channels // num_heads)
    return head[:, None] != head


class _FactorizedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, num_heads: int, *positions: Tensor) -> Tensor:
        query, key, value = qkv.chunk(3, dim=-1)
        weights = key.softmax(dim=1)
        scale = (query.shape[-1] // num_heads) ** -0.5
        output = torch.empty_like(weights)
        contexts = []
        for image, (q, w, v, out) in enumerate(zip(query, weights, value, output, strict=True)):
            contexts.append(scale * _products(w, v, num_heads))
            attended = _applied(q, contexts[-1], num_heads)
            _add_products(attended, q, [part[image] for part in positions], out)
        ctx.save_for_backward(qkv, weights, torch.stack(contexts), *positions)
        ctx.scale, ctx.num_heads = scale, num_heads
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        qkv, weights, contexts, *positions = ctx.saved_tensors
        num_heads = ctx.num_heads
        query, _, value = qkv.chunk(3, dim=-1)
        grad = grad.contiguous()
        grad_qkv = torch.empty_like(qkv)
        grad_query, grad_key, grad_value = grad_qkv.chunk(3, dim=-1)
        for image, (g, q, w, v) in enumerate(zip(grad, query, weights, value, strict=True)):
            attended = _applied(g, contexts[image].transpose(-1, -2), num_heads)
            _add_products(attended, g, [part[image] for part in positions], grad_query[image])
            grad_context = ctx.scale * _products(q, g, num_heads)
            _heads(grad_value[image], num_heads).copy_(_applied(w, grad_context, num_heads))
            grad_weights = _applied(v, grad_context.transpose(-1, -2), num_heads)
            by_head = _heads(w, num_heads)
            grad_logits = torch._softmax_backward_data(grad_weights, by_head, 1, w.dtype)
            _heads(grad_key[image], num_heads).copy_(grad_logits)
        sizes = [part.shape[-1] for part in positions]
        pairs = zip(grad.split(sizes, dim=-1), query.split(sizes, dim=-1), strict=True)
        return grad_qkv, None, *(g * q for g, q in pairs)


def _heads(tokens: Tensor, num_heads: int) -> Tensor:
    """Tokens of an image ``(N, C)`` as ``(heads, N, C / heads)``, a view."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(0, 1)


def _products(left: Tensor, right: Tensor, num_heads: int) -> Tensor:
    """``left^T right`` of every head of an image.

    Returns:
        Shape ``(heads, d, d)``; for narrow heads ``(C, C)`` with zeros between the channels of
        different heads, so that one product serves all.
    """
    channels = left.shape[-1]
    if channels >= _NARROW * num_heads:
        return _heads(left, num_heads).transpose(1, 2) @ _heads(right, num_heads)
    return (left.t() @ right).masked_fill_(_strangers(channels, num_heads, left.device), 0)


def _applied(tokens: Tensor, matrices: Tensor, num_heads: int) -> Tensor:
    """The tokens ``(N, C)`` of every head times its matrix, ``(heads, N, C / heads)``."""
    if matrices.dim() == 2:
        return _heads(tokens @ matrices, num_heads)
    return _heads(tokens, num_heads) @ matrices


def _add_products(start: Tensor, tokens: Tensor, parts: list[Tensor], output: Tensor) -> None:
    """``start + tokens * part`` into ``output``, group by group of heads.

    Args:
        start: Shape ``(heads, N, C / heads)``.
        tokens: Shape ``(N, C)``.
        parts: By groups of channels, shapes ``(N, C_group)``.
        output: Shape ``(N, C)``.
    """
    dims = start.shape[-1]
    heads = [part.shape[-1] // dims for part in parts]
    for first, token, part, out in zip(
        start.transpose(0, 1).split(heads, dim=1),
        tokens.unflatten(-1, (-1, dims)).split(heads, dim=1),
        parts,
        output.unflatten(-1, (-1, dims)).split(heads, dim=1),
        strict=True,
    ):
        torch.addcmul(first, token, part.unflatten(-1, (-1, dims)), out=out)
