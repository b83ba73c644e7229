"""Multi-scale deformable attention in Triton, as a backend of `mpvit.ops.msda.op`.

A row is one head of one query; a program computes several rows, with the channels of the head
side by side. All arithmetic is in float32, whatever the dtype of the values. The backward pass
adds into the gradient of the values atomically, in float32, so the order of these additions, and
with it the last bits, changes from run to run; the other gradients belong to one row each.

On a machine without a GPU the kernels run in Triton's interpreter, if ``TRITON_INTERPRET=1`` was
set before Triton was imported: slow, for tests.
"""

import contextlib
import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mpvit.ops.msda.reference import laid_out

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'


@triton.jit
def _corner(base, start, x, y, width, height, stride, channel, exists):  # type: ignore[no-untyped-def]
    """Offsets and mask, (rows, channels), of the pixel (x, y) of each row; outside is masked."""
    inside = exists & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    offset = base + (start + y * width + x) * stride
    return offset[:, None] + channel[None, :], inside[:, None]


@triton.jit
def _place(locations, sample, size, exists):  # type: ignore[no-untyped-def]
    """First pixel along one axis, distance from it, and whether the sample touches the map."""
    position = tl.load(locations + sample, mask=exists, other=0.0).to(tl.float32) * size - 0.5
    touches = (position >= -1) & (position < size)  # false also for what is not a number
    position = tl.where(touches, position, 0.0)
    first = tl.floor(position)
    return first.to(tl.int32), position - first, touches


@triton.jit
def _forward_kernel(  # type: ignore[no-untyped-def]
    value,
    shapes,
    starts,
    locations,
    weights,
    output,
    rows,
    positions,
    queries,
    heads,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    exists = row < rows
    real = (channel < CHANNELS)[None, :]
    stride = heads * CHANNELS
    base = row // (heads * queries) * positions * stride + row % heads * CHANNELS
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for level in range(LEVELS):
        height = tl.load(shapes + 2 * level).to(tl.int32)
        width = tl.load(shapes + 2 * level + 1).to(tl.int32)
        start = tl.load(starts + level).to(tl.int32)
        for point in tl.static_range(POINTS):
            sample = (row * LEVELS + level) * POINTS + point
            x, right, x_touches = _place(locations, 2 * sample, width, exists)
            y, below, y_touches = _place(locations, 2 * sample + 1, height, exists)
            touches = exists & x_touches & y_touches
            weight = tl.load(weights + sample, mask=touches, other=0.0).to(tl.float32)
            for down in tl.static_range(2):
                for over in tl.static_range(2):
                    at, inside = _corner(
                        base, start, x + over, y + down, width, height, stride, channel, touches
                    )
                    share = (right if over else 1 - right) * (below if down else 1 - below)
                    pixel = tl.load(value + at, mask=inside & real, other=0.0).to(tl.float32)
                    total += (weight * share)[:, None] * pixel
    at = row[:, None] * CHANNELS + channel[None, :]
    tl.store(output + at, total, mask=exists[:, None] & real)


@triton.jit
def _backward_kernel(  # type: ignore[no-untyped-def]
    grad_output,
    value,
    shapes,
    starts,
    locations,
    weights,
    grad_value,
    grad_locations,
    grad_weights,
    rows,
    positions,
    queries,
    heads,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    exists = row < rows
    real = (channel < CHANNELS)[None, :]
    stride = heads * CHANNELS
    base = row // (heads * queries) * positions * stride + row % heads * CHANNELS
    own = row[:, None] * CHANNELS + channel[None, :]
    grad = tl.load(grad_output + own, mask=exists[:, None] & real, other=0.0).to(tl.float32)
    for level in range(LEVELS):
        height = tl.load(shapes + 2 * level).to(tl.int32)
        width = tl.load(shapes + 2 * level + 1).to(tl.int32)
        start = tl.load(starts + level).to(tl.int32)
        for point in tl.static_range(POINTS):
            sample = (row * LEVELS + level) * POINTS + point
            x, right, x_touches = _place(locations, 2 * sample, width, exists)
            y, below, y_touches = _place(locations, 2 * sample + 1, height, exists)
            touches = exists & x_touches & y_touches
            weight = tl.load(weights + sample, mask=touches, other=0.0).to(tl.float32)
            grad_x = tl.zeros((ROWS,), tl.float32)
            grad_y = tl.zeros((ROWS,), tl.float32)
            grad_weight = tl.zeros((ROWS,), tl.float32)
            for down in tl.static_range(2):
                for over in tl.static_range(2):
                    at, inside = _corner(
                        base, start, x + over, y + down, width, height, stride, channel, touches
                    )
                    over_share = right if over else 1 - right
                    down_share = below if down else 1 - below
                    pixel = tl.load(value + at, mask=inside & real, other=0.0).to(tl.float32)
                    product = tl.sum(grad * pixel, axis=1)
                    grad_weight += over_share * down_share * product
                    grad_x += (1.0 if over else -1.0) * down_share * product
                    grad_y += (1.0 if down else -1.0) * over_share * product
                    share = (weight * over_share * down_share)[:, None]
                    tl.atomic_add(grad_value + at, share * grad, mask=inside & real)
            tl.store(grad_weights + sample, grad_weight, mask=exists)
            tl.store(grad_locations + 2 * sample, grad_x * weight * width, mask=exists)
            tl.store(grad_locations + 2 * sample + 1, grad_y * weight * height, mask=exists)


def _tuned(kernel: Any, **options: Any) -> Any:
    """A kernel that finds its rows per program when it first meets a kind of input on a GPU."""
    configs = [
        triton.Config({'ROWS': rows}, num_warps=warps)
        for rows, warps in [(4, 1), (8, 2), (16, 4), (32, 4)]
    ]
    key = ['CHANNELS', 'LEVELS', 'POINTS']
    return triton.autotune(configs[2:3] if _INTERPRETED else configs, key, **options)(kernel)


_run_forward = _tuned(_forward_kernel)
_run_backward = _tuned(_backward_kernel, reset_to_zero=['grad_value'])


def forward(*inputs: Tensor) -> Tensor:
    """Output in the dtype of the values."""
    value, _, locations, _ = inputs
    batch, _, heads, channels = value.shape
    output = value.new_empty(batch, locations.shape[1], heads * channels)
    with _on(value):
        _run_forward[_grid](*laid_out(None, *inputs), output, **_sizes(value, locations))
    return output


def backward(grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of value (in float32), locations and weights."""
    value, _, locations, weights = inputs
    grads = (
        torch.zeros(value.shape, dtype=torch.float32, device=value.device),
        locations.new_empty(locations.shape),
        weights.new_empty(weights.shape),
    )
    with _on(value):
        _run_backward[_grid](
            grad_output.contiguous(), *laid_out(None, *inputs), *grads, **_sizes(value, locations)
        )
    return grads


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why it cannot serve values of this dtype on this device, or ``None`` if it can."""
    if dtype not in _DTYPES:
        return f'it computes in float32, too coarse for {str(dtype).removeprefix("torch.")}'
    if device.type != 'cuda' and not (device.type == 'cpu' and _INTERPRETED):
        return 'it needs a GPU'
    return None


def _grid(sizes: dict[str, Any]) -> tuple[int]:
    return (triton.cdiv(sizes['rows'], sizes['ROWS']),)


def _sizes(value: Tensor, locations: Tensor) -> dict[str, int]:
    batch, positions, heads, channels = value.shape
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    return dict(
        rows=batch * queries * heads,
        positions=positions,
        queries=queries,
        heads=heads,
        CHANNELS=channels,
        LEVELS=levels,
        POINTS=points,
        BLOCK=triton.next_power_of_2(channels),
    )


def _on(value: Tensor) -> contextlib.AbstractContextManager:
    """Launch on the device of the tensors, which need not be the current one."""
    return torch.cuda.device(value.device) if value.is_cuda else contextlib.nullcontext()
