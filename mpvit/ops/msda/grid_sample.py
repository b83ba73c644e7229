"""Multi-scale deformable attention with the operator GridSample, for exported graphs.

The same values as `mpvit.ops.msda.reference`, up to rounding. Queries come last and levels are
summed one by one, since runtimes are slow where the last dimension is as short as the number of
points, and where all samples are kept: 1.7 times as fast in OpenVINO as the form of the reference
(attention of an encoder layer at 640x640 pixels, one thread).
"""

import torch.nn.functional as F
from torch import Tensor

from mpvit.ops.msda.reference import BILINEAR, Shapes, pairs, widened


def forward(
    value: Tensor, spatial_shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples, as `mpvit.ops.msda.reference.forward` gives it."""
    value, locations, weights = widened(value, sampling_locations, attention_weights)
    heads, channels = value.shape[2:]
    # (B, queries, heads, levels, points, 2) -> levels x (B * heads, points, queries, 2)
    grids = (2 * locations - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1).unbind(1)
    # (B, queries, heads, levels, points) -> levels x (B * heads, 1, points, queries)
    shares = weights.permute(0, 2, 3, 4, 1).flatten(0, 1).unsqueeze(1).unbind(2)
    sums, start = [], 0
    for (height, width), grid, share in zip(pairs(spatial_shapes), grids, shares, strict=True):
        level = value[:, start : start + height * width]
        # (B, H * W, heads, C) -> (B * heads, C, H, W)
        maps = level.permute(0, 2, 3, 1).reshape(-1, channels, height, width)
        samples = F.grid_sample(maps, grid, **BILINEAR)  # (B * heads, C, points, queries)
        sums.append((samples * share).sum(2))
        start = start + height * width
    output = sums[0]
    for one in sums[1:]:
        output = output + one
    return output.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2)  # (B, queries, heads * C)
