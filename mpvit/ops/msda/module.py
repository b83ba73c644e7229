"""The forward pass of mmcv's `MultiScaleDeformableAttention`, with fewer passes over memory."""

from typing import Any

from torch import Tensor

from mpvit.ops.lean.dropout import add_dropout
from mpvit.ops.lean.linear import sum_linears
from mpvit.ops.msda.fused import applies, attend, sampling_locations
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

    Unlike it, locations come from one fused pass over the offsets, or on a GPU from the kernel
    itself (`mpvit.ops.msda.fused`); masked values are not copied, and nothing waits for the GPU
    (mmcv compares the level sizes with the values on the host).

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
    value, offsets = _split(value, self.num_heads, -1), _split(offsets, *grid, 2)
    if applies(value, reference_points):
        logits = _split(weights, *grid)
        output = attend(value, spatial_shapes, reference_points, offsets, logits)
    else:
        weights = _split(weights, self.num_heads, -1).softmax(-1)
        output = ms_deform_attn(
            value,
            spatial_shapes,
            sampling_locations(reference_points, offsets, spatial_shapes),
            _split(weights, *grid[1:]),
        )
    output = self.output_proj(output)
    if not self.batch_first:
        output = output.transpose(0, 1)
    return add_dropout(identity, output, self.dropout.p, self.dropout.training)


def _split(tensor: Tensor, *sizes: int) -> Tensor:
    """Split the last dimension; `unflatten` would fix the others in an exported graph."""
    return tensor.view(*tensor.shape[:-1], *sizes)
