"""Deformable attention from reference points, offsets and logits, as one operator for GPUs.

What `mpvit.ops.msda.op.ms_deform_attn` takes, sampling locations and attention weights, is computed
from what a module's linear layers give. On a GPU this operator does it: the Triton kernels compute
both where they use them and never store them; for other backends they are computed again in the
backward pass. Kept for the backward pass are offsets and logits alone, which mixed precision makes
half as large as locations and weights.

The backend is chosen as for `ms_deform_attn`, between the Triton kernels as a whole and the others
with their locations and weights.
"""

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from mpvit.ops.msda import op
from mpvit.ops.msda.reference import Shapes


def applies(value: Tensor, reference_points: Tensor) -> bool:
    """Whether a module calls `attend`: on a GPU, unless it exports or boxes want a gradient."""
    return (
        value.device.type == 'cuda'
        and not op.exporting()
        and not (reference_points.shape[-1] == 4 and reference_points.requires_grad)
    )


def attend(
    value: Tensor,
    spatial_shapes: Shapes,
    reference_points: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> Tensor:
    """Deformable attention at `sampling_locations` with a softmax over levels and points.

    Differentiable in values, offsets, logits and points.

    Args:
        value: Values of all levels in a row, shape ``(B, sum(H_l * W_l), heads, C)``.
        spatial_shapes: As of `ms_deform_attn`.
        reference_points: Points or boxes in [0, 1], shape ``(B, queries, levels, 2 or 4)``. Boxes
            get no gradient.
        offsets: As of `sampling_locations`, shape ``(B, queries, heads, levels, points, 2)``.
        logits: Attention weights before the softmax, shape ``(B, queries, heads, levels, points)``.

    Returns:
        Tensor of shape ``(B, queries, heads * C)`` and of the dtype of ``value``.

    Raises:
        ValueError: The shapes do not fit each other.
        UserError: ``MPVIT_MSDA`` names no backend, or one that cannot serve this call.
    """
    spatial_shapes = op.level_sizes(spatial_shapes, value.device)
    op.check(value, spatial_shapes, offsets, logits)
    numbers = check_numbers(reference_points)
    batch, queries, _, levels = logits.shape[:4]
    points = reference_points.expand(batch, queries, levels, numbers)
    return _forward_op(value, spatial_shapes, points, offsets, logits)


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
    numbers = check_numbers(reference_points)
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


def check_numbers(reference_points: Tensor) -> int:
    """How many numbers a reference point has: 2 or 4, or else a `ValueError`."""
    numbers = reference_points.shape[-1]
    if numbers not in (2, 4):
        raise ValueError(f'reference points have 2 or 4 numbers, not {numbers}')
    return numbers


def _widths_and_heights(shapes: Sequence[tuple[int, int]]) -> Tensor:
    """As a tensor that depends on them in a graph; `torch.tensor` would make constants of them."""
    return torch.stack([torch.stack([torch.full((), n) for n in (w, h)]) for h, w in shapes])


def forward(
    value: Tensor, spatial_shapes: Tensor, reference_points: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """`attend` by the backend of choice, without autograd."""
    op.check_positions(value, spatial_shapes)
    inputs = (value, spatial_shapes, reference_points, offsets, logits)
    run = _chosen('fused_forward', _forward_of, *inputs)
    return run(*inputs).to(value.dtype).contiguous()


def backward(
    grad_output: Tensor,
    output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    reference_points: Tensor,
    offsets: Tensor,
    logits: Tensor,
    exactly: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, offsets and logits; ``exactly`` keeps that of offsets in float32."""
    inputs = (value, spatial_shapes, reference_points, offsets, logits)
    dtype = _of_offsets(offsets, exactly)
    run = _chosen('fused_backward', _backward_of, grad_output, output, *inputs, dtype)
    of_value, of_offsets, of_logits = run(grad_output, output, *inputs, dtype)
    return (
        of_value.to(value.dtype).contiguous(),
        of_offsets.to(dtype).contiguous(),
        of_logits.to(logits.dtype).contiguous(),
    )


def _of_offsets(offsets: Tensor, exactly: bool) -> torch.dtype:
    return torch.promote_types(offsets.dtype, torch.float32) if exactly else offsets.dtype


_forward_op = torch.library.custom_op('mpvit::fused_deform_attn', forward, mutates_args=())
_backward_op = torch.library.custom_op(
    'mpvit::fused_deform_attn_backward', backward, mutates_args=()
)


@_forward_op.register_fake
def _(*inputs: Tensor) -> Tensor:
    value, _, _, offsets, _ = inputs
    batch, _, heads, channels = value.shape
    return value.new_empty(batch, offsets.shape[1], heads * channels)


@_backward_op.register_fake
def _(
    grad_output: Tensor,
    output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    reference_points: Tensor,
    offsets: Tensor,
    logits: Tensor,
    exactly: bool,
) -> tuple[Tensor, ...]:
    return (
        value.new_empty(value.shape),
        offsets.new_empty(offsets.shape, dtype=_of_offsets(offsets, exactly)),
        logits.new_empty(logits.shape),
    )


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    # the output is also the input of a linear layer, which keeps it anyway
    ctx.save_for_backward(output, *inputs)


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, grad_output: Tensor
) -> tuple[Tensor | None, ...]:
    output, *inputs = ctx.saved_tensors  # type: ignore[attr-defined]
    _, shapes, reference_points, offsets, _ = inputs
    wants_points = ctx.needs_input_grad[2]  # type: ignore[attr-defined]
    if wants_points and reference_points.shape[-1] == 4:
        raise NotImplementedError('fused deformable attention has no gradient of boxes')
    of_value, of_offsets, of_logits = _backward_op(grad_output, output, *inputs, wants_points)
    of_points = None
    if wants_points:  # an offset of one pixel moves a sample as far as 1 / size of its point
        of_points = (of_offsets.sum((2, 4)) * shapes.flip(-1)).to(reference_points.dtype)
    return of_value, None, of_points, of_offsets.to(offsets.dtype), of_logits


_forward_op.register_autograd(_differentiate, setup_context=_keep)


def _chosen(
    direction: str, of: Callable[[ModuleType], Callable], *arguments: Tensor | torch.dtype
) -> Callable:
    """The function that serves a call: one of a backend itself, or made of what it has."""
    value, shapes, _, offsets, logits = [t for t in arguments if isinstance(t, Tensor)][-5:]

    def run(backend: ModuleType) -> Callable[[], object]:
        return partial(of(backend), *arguments)

    return of(op.backend(direction, value, shapes, offsets, logits, run=run))


def _forward_of(backend: ModuleType) -> Callable[..., Tensor]:
    return getattr(backend, 'fused_forward', None) or partial(_forward_by, backend)


def _backward_of(backend: ModuleType) -> Callable[..., tuple[Tensor, ...]]:
    return getattr(backend, 'fused_backward', None) or partial(_backward_by, backend)


def _forward_by(backend: ModuleType, value: Tensor, shapes: Tensor, *rest: Tensor) -> Tensor:
    return backend.forward(value, shapes, *_located(shapes, *rest))


def _backward_by(
    backend: ModuleType,
    grad_output: Tensor,
    output: Tensor,
    value: Tensor,
    shapes: Tensor,
    reference_points: Tensor,
    offsets: Tensor,
    logits: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, ...]:
    """By the chain rule; below autograd, which cannot serve here."""
    locations, weights = _located(shapes, reference_points, offsets, logits)
    of_value, of_locations, of_weights = backend.backward(
        grad_output, value, shapes, locations, weights
    )
    if reference_points.shape[-1] == 2:
        of_offsets = of_locations / shapes.flip(-1)[:, None]
    else:
        halves = reference_points[:, :, None, :, None, 2:] * (0.5 / offsets.shape[-2])
        of_offsets = of_locations * halves
    weighted = weights * of_weights
    of_logits = weighted - weights * weighted.sum((-1, -2), keepdim=True)
    return of_value, of_offsets, of_logits


def _located(
    shapes: Tensor, reference_points: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Sampling locations and attention weights, float32 at least."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    weights = logits.flatten(-2).softmax(-1, dtype=dtype).view_as(logits)
    return sampling_locations(reference_points, offsets, shapes), weights
