"""Multi-scale deformable attention whose gradients are the same in every run, also on a GPU.

A backend of `mpvit.ops.msda.op`, taken on a GPU where
``torch.use_deterministic_algorithms(True)`` is in force: other backends add into the gradient of
the values in an order that changes. Slow, and with the memory of one level's samples.
"""

import torch
from torch import Tensor

from mpvit.ops.msda import reference
from mpvit.ops.msda.reference import pairs, widened

forward = reference.forward
unavailable = reference.unavailable


def backward(grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of value, locations and weights, in float32 at least."""
    value, shapes, locations, weights = inputs
    value, locations, weights, grad_output = widened(value, locations, weights, grad_output)
    batch, positions, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    rows = value.transpose(1, 2).reshape(-1, channels)  # (B * heads * positions, C)
    of_rows, start = torch.zeros_like(rows), 0
    # (B, queries, heads * C) -> (B, heads, queries, 1, C)
    grad = grad_output.view(batch, queries, heads, 1, channels).transpose(1, 2)
    image = torch.arange(batch * heads, device=value.device).view(batch, heads, 1, 1) * positions
    of_locations, of_weights = [], []
    for level, (height, width) in enumerate(pairs(shapes)):
        size = locations.new_tensor([width, height])
        # (B, heads, queries, points, 2) and (B, heads, queries, points)
        pixels = locations[:, :, :, level].transpose(1, 2) * size - 0.5
        weight = weights[:, :, :, level].transpose(1, 2)
        first = pixels.floor()
        after = pixels - first
        of_weight, of_pixels = torch.zeros_like(weight), torch.zeros_like(pixels)
        for down in (0, 1):
            for over in (0, 1):
                x, y = first[..., 0] + over, first[..., 1] + down
                inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
                across, along = (
                    after[..., axis] if far else 1 - after[..., axis]
                    for axis, far in enumerate((over, down))
                )
                place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
                index = (image + start + place.nan_to_num().long()).flatten()
                sample = rows.index_select(0, index).view(batch, heads, queries, points, channels)
                product = (sample * grad).sum(-1) * inside
                of_weight += product * across * along
                of_pixels[..., 0] += product * weight * along * (2 * over - 1)
                of_pixels[..., 1] += product * weight * across * (2 * down - 1)
                share = (weight * across * along * inside)[..., None] * grad
                # in this mode torch sorts by index before it adds
                of_rows.index_add_(0, index, share.reshape(-1, channels))
        of_weights.append(of_weight)
        of_locations.append(of_pixels * size)
        start += height * width
    return (
        of_rows.view(batch, heads, positions, channels).transpose(1, 2),
        torch.stack(of_locations, 3).transpose(1, 2),
        torch.stack(of_weights, 3).transpose(1, 2),
    )
