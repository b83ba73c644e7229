"""The forward pass of mmcv's `MultiScaleDeformableAttention`, with fewer passes over memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mpvit.ops.lean.dropout import add_dropout
from mpvit.ops.lean.linear import sum_linears
from mpvit.ops.msda.op import exporting, level_sizes, ms_deform_attn
from mpvit.ops.msda.reference import Shapes


def forward(
    self: Any,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    identity: Tensor | None = None,
    query_pos: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    reference_points: Tensor | None = None,
    spatial_shapes: Shapes | None = None,
    level_start_index: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """What mmcv's method computes, from the same parameters.

    Unlike it, locations come from one fused pass over the offsets, masked values are not copied,
    and nothing waits for the GPU (mmcv compares the level sizes with the values on the host).

    Args:
        self: The `MultiScaleDeformableAttention`.
        query: Shape ``(queries, B, C)``, or ``(B, queries, C)`` with ``batch_first``.
        key: Not used.
        value: Shape ``(tokens, B, C)`` or ``(B, tokens, C)``; None for ``query``.
        identity: What the result is added to; None for ``query``.
        query_pos: Position encoding added to ``query``, of the same shape.
        key_padding_mask: True where a token is padding, shape ``(B, tokens)``.
        reference_points: ``(x, y)`` or ``(x, y, w, h)`` in [0, 1], shape
            ``(B, queries, levels, 2 or 4)``.
        spatial_shapes: ``(H, W)`` of every level, shape ``(levels, 2)``, or pairs of numbers.
        level_start_index: Not used.
        **kwargs: Not used.

    Returns:
        Tensor of the shape of ``query``.

    Raises:
        ValueError: Reference points or sizes are missing, or have the wrong shape.
    """
    if reference_points is None or spatial_shapes is None:
        raise ValueError('deformable attention needs reference_points and spatial_shapes')
    value = query if value is None else value
    identity = query if identity is None else identity
    if not exporting():
        spatial_shapes = level_sizes(spatial_shapes, query.device)
    if not self.batch_first:
        query, value = query.transpose(0, 1), value.transpose(0, 1)
        query_pos = None if query_pos is None else query_pos.transpose(0, 1)
    grid = (self.num_heads, self.num_levels, self.num_points)

    value = self.value_proj(value)
    if key_padding_mask is not None:
        value = value.masked_fill_(key_padding_mask[..., None], 0.0)
    layers = self.sampling_offsets, self.attention_weights
    if query_pos is None:
        offsets, weights = (layer(query) for layer in layers)
    else:
        offsets, weights = sum_linears(query, query_pos, layers)
    offsets, weights = _split(offsets, *grid, 2), _split(weights, self.num_heads, -1)
    output = ms_deform_attn(
        _split(value, self.num_heads, -1),
        spatial_shapes,
        sampling_locations(reference_points, offsets, spatial_shapes),
        _split(weights.softmax(-1), *grid[1:]),
    )
    output = self.output_proj(output)
    if not self.batch_first:
        output = output.transpose(0, 1)
    return add_dropout(identity, output, self.dropout.p, self.dropout.training)


def _split(tensor: Tensor, *sizes: int) -> Tensor:
    """Split the last dimension; `unflatten` would fix the others in an exported graph."""
    return tensor.view(*tensor.shape[:-1], *sizes)


def sampling_locations(reference_points: Tensor, offsets: Tensor, spatial_shapes: Shapes) -> Tensor:
    """Where to sample: reference points plus offsets.

    Offsets from a point are in pixels of each level, offsets from a box in halves of its width and
    height per sampling point ("Deformable DETR", section 4.1 and appendix A.4).

    Args:
        reference_points: Shape ``(B, queries, levels, 2 or 4)``, in [0, 1].
        offsets: Shape ``(B, queries, heads, levels, points, 2)``.
        spatial_shapes: ``(H, W)`` of every level.

    Returns:
        Tensor of the shape of ``offsets``, of the wider type of the two: float32 where mixed
        precision made the offsets smaller, and float64 in a model of float64, whose encoder has
        reference points of float32.

    Raises:
        ValueError: The reference points have neither 2 nor 4 numbers.
    """
    numbers = reference_points.shape[-1]
    if numbers not in (2, 4):
        raise ValueError(f'reference points have 2 or 4 numbers, not {numbers}')
    points = offsets.shape[-2]

    def per_sample(tensor: Tensor) -> Tensor:
        """``(..., levels, 2)`` to ``(..., 1, levels * points * 2)``: long rows make it fast."""
        return tensor.unsqueeze(-2).expand(*tensor.shape[:-1], points, 2).flatten(-3).unsqueeze(-2)

    wider = torch.promote_types(reference_points.dtype, offsets.dtype)
    reference_points = reference_points.to(wider)
    start, flat = per_sample(reference_points[..., :2]), offsets.flatten(-3).to(wider)
    if numbers == 2:
        if not isinstance(spatial_shapes, Tensor):  # exporting
            return (start + flat / per_sample(_widths_and_heights(spatial_shapes))).view_as(offsets)
        sizes = spatial_shapes.flip(-1).to(wider)
        locations = torch.addcdiv(start, flat, per_sample(sizes))
    else:
        locations = torch.addcmul(
            start, flat, per_sample(reference_points[..., 2:] * (0.5 / points))
        )
    return locations.view_as(offsets)


def _widths_and_heights(shapes: Sequence[tuple[int, int]]) -> Tensor:
    """As a tensor that depends on them in a graph; `torch.tensor` would make constants of them."""
    return torch.stack([torch.stack([torch.as_tensor(n) for n in (w, h)]) for h, w in shapes])
