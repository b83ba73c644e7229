"""Factorized attention with relative positions (CoaT, eq. 6) with fewer passes over the tokens.

``q (softmax(k)^T v) / sqrt(d) + q * position`` of every head. The plain formulation copies query,
weights and value head by head and keeps the copies for the backward pass. For large maps on the
CPU, products run on views, image by image, the position term is added on the way, and the gradients
of query, key and value are written where they belong. The backward pass computes the attention
again from query, key and value, which takes few operations, rather than keep it for the linear
layer that follows.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mpvit.ops.lean.linear import Value, is_served, linear_after, product_dtype

_LARGE = 1 << 17  # numbers of an image's qkv from which to go image by image
_NARROW = 16  # channels of a head below which a product per head takes longer than one for all


def attention_linear(qkv: Tensor, positions: list[Tensor], num_heads: int, layer: Any) -> Tensor:
    """A linear layer of the attention of linear cost, whose softmax is over the tokens.

    Args:
        qkv: Query, key and value, shape ``(B, N, 3 * C)``.
        positions: Position encodings of the values by groups of channels, shapes
            ``(B, N, C_group)`` that add up to ``C``; they multiply the unscaled query.
        num_heads: Heads; channels are head-major.
        layer: From ``C`` channels to as many as the output has.

    Returns:
        Tensor of shape ``(B, N, out_features)``.
    """
    served = is_served(qkv, layer) and product_dtype(qkv) == qkv.dtype
    if served and qkv[0].numel() >= _LARGE:
        return linear_after(functools.partial(_attended, num_heads), layer, qkv, *positions)
    query, key, value = qkv.chunk(3, dim=-1)
    scale = (query.shape[-1] // num_heads) ** -0.5
    context = scale * _products(key.softmax(dim=1), value, num_heads)
    # (B, heads, N, C / heads) -> (B, N, C)
    attended = _applied(query, context, num_heads).transpose(1, 2).flatten(2)
    output: Tensor = layer(attended + query * torch.cat(positions, dim=-1))
    return output


def _attended(num_heads: int, qkv: Tensor, *positions: Tensor) -> Value:
    """The attention, image by image."""
    query, key, value = qkv.chunk(3, dim=-1)
    weights = key.softmax(dim=1)
    scale = (query.shape[-1] // num_heads) ** -0.5
    output = torch.empty_like(weights)
    contexts = []
    for image, (q, w, v, out) in enumerate(zip(query, weights, value, output, strict=True)):
        contexts.append(scale * _products(w, v, num_heads))
        attended = _applied(q, contexts[-1], num_heads)
        _add_products(attended, q, [part[image] for part in positions], out)

    def gradients(grad: Tensor) -> Sequence[Tensor]:
        grad_qkv = torch.empty_like(qkv)
        grad_query, grad_key, grad_value = grad_qkv.chunk(3, dim=-1)
        for image, (g, q, w, v) in enumerate(zip(grad, query, weights, value, strict=True)):
            attended = _applied(g, contexts[image].transpose(-1, -2), num_heads)
            _add_products(attended, g, [part[image] for part in positions], grad_query[image])
            grad_context = scale * _products(q, g, num_heads)
            _heads(grad_value[image], num_heads).copy_(_applied(w, grad_context, num_heads))
            grad_weights = _applied(v, grad_context.transpose(-1, -2), num_heads)
            by_head = _heads(w, num_heads)
            grad_logits = torch._softmax_backward_data(grad_weights, by_head, 1, w.dtype)
            _heads(grad_key[image], num_heads).copy_(grad_logits)
        sizes = [part.shape[-1] for part in positions]
        pairs = zip(grad.split(sizes, dim=-1), query.split(sizes, dim=-1), strict=True)
        return grad_qkv, *(g * q for g, q in pairs)

    return output, gradients


def _heads(tokens: Tensor, num_heads: int) -> Tensor:
    """Tokens ``(..., N, C)`` as ``(..., heads, N, C / heads)``, a view."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def _is_narrow(tokens: Tensor, num_heads: int) -> bool:
    """Whether one product of all channels serves all heads."""
    # on the meta device nothing is computed, only counted: there by head, as published
    return tokens.shape[-1] < _NARROW * num_heads and not tokens.is_meta


def _products(left: Tensor, right: Tensor, num_heads: int) -> Tensor:
    """``left^T right`` of every head; both ``(..., N, C)``.

    Returns:
        Shape ``(..., heads, d, d)``; for narrow heads ``(..., C, C)`` with zeros between the
        channels of different heads.
    """
    if not _is_narrow(left, num_heads):
        return _heads(left, num_heads).transpose(-1, -2) @ _heads(right, num_heads)
    channels = left.shape[-1]
    head = torch.arange(num_heads, device=left.device).repeat_interleave(channels // num_heads)
    return (left.transpose(-1, -2) @ right).masked_fill(head[:, None] != head, 0)


def _applied(tokens: Tensor, matrices: Tensor, num_heads: int) -> Tensor:
    """Tokens ``(..., N, C)`` of every head times its matrix, ``(..., heads, N, C / heads)``."""
    if not _is_narrow(tokens, num_heads):
        return _heads(tokens, num_heads) @ matrices
    return _heads(tokens @ matrices, num_heads)


def _add_products(start: Tensor, tokens: Tensor, parts: list[Tensor], output: Tensor) -> None:
    """``start + tokens * part`` into ``output``, group by group of heads.

    ``start`` is ``(heads, N, C / heads)``, ``tokens`` and ``output`` are ``(N, C)``, and each of
    ``parts`` is ``(N, C_group)``.
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
