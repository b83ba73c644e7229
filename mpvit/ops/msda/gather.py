"""Multi-scale deformable attention by looking up the four pixels around every sample.

For exported graphs: it has no GridSample, which not every runtime computes alike for every opset.
The same values as `mpvit.ops.msda.reference`, up to rounding.
"""

import torch
from torch import Tensor

from mpvit.ops.msda.reference import Shapes, pairs, widened

_CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))  # (x, y)


def forward(
    value: Tensor, spatial_shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples, as `mpvit.ops.msda.reference.forward` gives it."""
    value, sampling_locations, attention_weights = widened(
        value, sampling_locations, attention_weights
    )
    batch, positions, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    rows = value.reshape(-1, channels)  # of an image, position and head
    images = torch.arange(batch, device=value.device)[:, None, None, None, None]
    head = torch.arange(heads, device=value.device)[:, None, None]
    sums, start = [], 0
    for level, (height, width) in enumerate(pairs(spatial_shapes)):
        pixels, shares = _pixels(sampling_locations[:, :, :, level], height, width)
        index = (images * positions + start + pixels) * heads + head
        samples = rows.index_select(0, index.flatten())
        shares = shares * attention_weights[:, :, :, level, :, None]
        # (B, queries, heads, 1, points * 4) times (B, queries, heads, points * 4, C)
        samples = samples.view(batch, queries, heads, -1, channels)
        sums.append(shares.flatten(3).unsqueeze(3) @ samples)
        start = start + height * width
    return torch.stack(sums).sum(0).view(batch, queries, heads * channels)


def _pixels(locations: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four pixels around each location ``(x, y)`` in [0, 1], and what each contributes.

    Returns:
        Places in the level, row by row, and shares in [0, 1], 0 outside; shapes ``(..., 4)``.
    """
    x = locations[..., 0] * width - 0.5
    y = locations[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    across, down = x - left, y - top
    pixels, shares = [], []
    for right, below in _CORNERS:
        column, row = left + right, top + below
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        share = (across if right else 1 - across) * (down if below else 1 - down)
        shares.append(share * inside)
        pixels.append((row.long() * width + column.long()) * inside)  # 0 where there is none
    return torch.stack(pixels, -1), torch.stack(shares, -1)
