"""Multi-scale deformable attention in plain PyTorch: the equation every kernel is held to.

Also a backend of `mpvit.ops.msda.op`: it serves every device and dtype, slowly.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Height and width of every level: a tensor of shape ``(levels, 2)``, or pairs of numbers, which an
#: exported graph may leave open.
Shapes = Tensor | Sequence[tuple[int, int]]

BILINEAR: dict[str, Any] = dict(mode='bilinear', padding_mode='zeros', align_corners=False)


def forward(
    value: Tensor, spatial_shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples over levels and points, in float32 at least.

    Equation 3 of "Deformable DETR" (Zhu et al., ICLR 2021), without the two linear layers: for
    head m and query q, ``sum_l sum_k A[m,l,q,k] * V_l[m](location[m,l,q,k])``, zeros outside.
    Arguments and result are those of `mpvit.ops.msda.op.ms_deform_attn`.
    """
    heads = value.shape[2]
    wide = widened(value, sampling_locations, attention_weights)
    maps, grids, weights = _by_head(wide[0], spatial_shapes, *wide[1:])
    samples = [F.grid_sample(m, g, **BILINEAR) for m, g in zip(maps, grids, strict=True)]
    output = (torch.cat(samples, dim=-1) * weights).sum(-1)  # (B * heads, C, queries)
    return output.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2).contiguous()


def _by_head(
    value: Tensor, spatial_shapes: Shapes, locations: Tensor, weights: Tensor
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """What `grid_sample` wants, with heads as images.

    Returns:
        Maps of each level, ``(B * heads, C, H, W)``; grids of each level, in [-1, 1],
        ``(B * heads, queries, points, 2)``; weights ``(B * heads, 1, queries, levels * points)``.
    """
    channels = value.shape[3]
    # (B, queries, heads, levels, points, 2) -> levels x (B * heads, queries, points, 2)
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1).unbind(2)
    maps, start = [], 0
    for h, w in pairs(spatial_shapes):
        level = value[:, start : start + h * w]
        # (B, H * W, heads, C) -> (B * heads, C, H, W)
        maps.append(level.permute(0, 2, 3, 1).reshape(-1, channels, h, w))
        start = start + h * w
    # (B, queries, heads, levels, points) -> (B * heads, 1, queries, levels * points)
    return maps, list(grids), weights.transpose(1, 2).flatten(0, 1).flatten(2).unsqueeze(1)


def pairs(shapes: Shapes) -> Sequence[tuple[int, int]]:
    """Height and width of every level as numbers."""
    return [(int(h), int(w)) for h, w in shapes] if isinstance(shapes, Tensor) else shapes


def backward(grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of value, locations and weights, in float32 at least."""
    value, shapes, *others = inputs
    batch, _, heads, channels = value.shape
    value, *others = widened(value, *others)
    maps, grids, weights = _by_head(value, shapes, *others)
    # (B, queries, heads * C) -> (B * heads, C, queries, 1)
    grad_output = grad_output.to(weights.dtype).transpose(1, 2)
    grad_output = grad_output.reshape(batch * heads, channels, -1, 1)
    grads_of_maps, grads_of_grids, grads_of_weights = [], [], []
    for level_map, grid, weight in zip(maps, grids, weights.chunk(len(maps), dim=-1), strict=True):
        sample = F.grid_sample(level_map, grid, **BILINEAR)
        grads_of_weights.append((sample * grad_output).sum(1))
        # bilinear, zeros outside, corners not aligned; called below autograd, which cannot serve
        grad_map, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
            grad_output * weight, level_map, grid, 0, 0, False, (True, True)
        )
        grads_of_maps.append(grad_map.view(batch, heads, channels, -1))
        grads_of_grids.append(2 * grad_grid.unflatten(0, (batch, heads)))
    grad_value = torch.cat(grads_of_maps, dim=-1).permute(0, 3, 1, 2)
    grad_locations = torch.stack(grads_of_grids, dim=3).transpose(1, 2)
    grad_weights = torch.stack(grads_of_weights, dim=2).unflatten(0, (batch, heads)).transpose(1, 2)
    return grad_value, grad_locations, grad_weights


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Never: plain PyTorch serves everything."""
    return None


def widened(*tensors: Tensor) -> list[Tensor]:
    """Tensors in their common dtype, float32 at least."""
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    return [t.to(dtype) for t in tensors]


def laid_out(dtype: torch.dtype | None, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Inputs of the operator as kernels on a GPU want them; nothing waits.

    Args:
        dtype: That of values, locations and weights; None leaves each as it is.
        *inputs: As for the operator.

    Returns:
        Values, sizes of the levels, first position of each level, locations and weights.
    """
    value, shapes, locations, weights = inputs
    shapes = shapes.to(value.device, torch.int64).contiguous()
    positions = shapes.prod(1)
    tensors = (value, locations, weights)
    value, locations, weights = (t.to(dtype or t.dtype).contiguous() for t in tensors)
    return value, shapes, positions.cumsum(0) - positions, locations, weights
