"""Multi-scale deformable attention in plain PyTorch: the equation every kernel is held to."""

import torch
import torch.nn.functional as F
from torch import Tensor


def ms_deform_attn(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples over levels and points.

    Equation 3 of "Deformable DETR" (Zhu et al., ICLR 2021), without the two linear layers: for
    head m and query q, ``sum_l sum_k A[m,l,q,k] * V_l[m](location[m,l,q,k])``, zeros outside.

    Args:
        value: Values of all levels in a row, shape ``(B, sum(H_l * W_l), heads, C)``.
        spatial_shapes: ``(H_l, W_l)`` of every level, shape ``(levels, 2)``.
        sampling_locations: ``(x, y)`` in [0, 1] of each level (outside is allowed and samples
            zeros), shape ``(B, queries, heads, levels, points, 2)``.
        attention_weights: Shape ``(B, queries, heads, levels, points)``.

    Returns:
        Tensor of shape ``(B, queries, heads * C)``.
    """
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    shapes = [(int(h), int(w)) for h, w in spatial_shapes]
    # (B, queries, heads, levels, points, 2) -> levels x (B * heads, queries, points, 2)
    grids = (2 * sampling_locations - 1).transpose(1, 2).flatten(0, 1).unbind(2)
    samples = []
    for level, (h, w), grid in zip(
        value.split([h * w for h, w in shapes], dim=1), shapes, grids, strict=True
    ):
        # (B, H * W, heads, C) -> (B * heads, C, H, W)
        maps = level.permute(0, 2, 3, 1).reshape(batch * heads, channels, h, w)
        samples.append(
            F.grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
        )
    # (B, queries, heads, levels, points) -> (B * heads, 1, queries, levels * points)
    weights = attention_weights.transpose(1, 2).flatten(0, 1).flatten(2).unsqueeze(1)
    output = (torch.cat(samples, dim=-1) * weights).sum(-1)  # (B * heads, C, queries)
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()
