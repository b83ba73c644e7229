"""Multi-scale deformable attention in Triton, as a backend of `mpvit.ops.msda.op` and `.fused`.

A row is one head of one query. A program computes several rows, with the channels of the head side
by side: 16 bytes a thread, so that values are read and gradients are added in the widest pieces
that the GPU has. All arithmetic is in float32, whatever the dtype of the values.

One pair of kernels has these options, constants of compilation:

- ``NUMBERS`` 0: sampling locations and attention weights are given. 2 or 4: offsets and logits are,
  with reference points of so many numbers; locations and softmax are computed here, and neither is
  ever stored.
- ``NEIGHBOURS``: the rows of a program are one head of neighbouring queries, which read much the
  same values, instead of all heads of a few queries. The tuner measures which is faster.
- ``ROWS`` and the number of warps, which the tuner measures too.

The backward pass adds into the gradient of the values atomically, so the order of these additions,
and with it the last bits, changes from run to run; the other gradients belong to one row each. The
sums are float32, or of the dtype of the values with ``MPVIT_MSDA_ATOMICS=native``.

Offsets are 32-bit numbers within an image. What does not fit is refused.

On a machine without a GPU the kernels run in Triton's interpreter, if ``TRITON_INTERPRET=1`` was
set before Triton was imported: slow, for tests.
"""

import contextlib
import inspect
import os
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mpvit.errors import UserError
from mpvit.ops.msda.selection import ATOMICS

_NATIVE_FROM = (9, 0)  # compute capability that adds 16 bytes of bfloat16 or float32 at once
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
_NUMBERS_OF_EACH_CALL = ['positions', 'queries', 'size_class']  # one compilation for all of them
_MOST = 2**31 - 2**16  # elements of a tensor within an image; a program may look past the last row


@triton.jit
def _place(queries, HEADS: tl.constexpr, ROWS: tl.constexpr, NEIGHBOURS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Image of a program, and query and head of each of its rows; queries may be past the last."""
    program = tl.program_id(0)
    if NEIGHBOURS:
        programs = tl.cdiv(queries, ROWS)  # for each head of each image
        pair = program // programs
        query = program % programs * ROWS + tl.arange(0, ROWS)
        return pair // HEADS, query, tl.zeros((ROWS,), tl.int32) + pair % HEADS
    else:
        programs = tl.cdiv(queries * HEADS, ROWS)  # for each image
        row = program % programs * ROWS + tl.arange(0, ROWS)
        return program // programs, row // HEADS, row % HEADS


@triton.jit
def _softmax(logits, row, exists, SAMPLES: tl.constexpr, SLOTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Largest logit of each row, and the inverse of the sum of exponentials."""
    slot = tl.arange(0, SLOTS)[None, :]
    mask = exists[:, None] & (slot < SAMPLES)
    logit = tl.load(logits + row[:, None] * SAMPLES + slot, mask=mask, other=float('-inf'))
    logit = tl.where(exists[:, None], logit.to(tl.float32), 0.0)
    largest = tl.max(logit, axis=1)
    return largest, 1 / tl.sum(tl.exp(logit - largest[:, None]), axis=1)


@triton.jit
def _level(  # type: ignore[no-untyped-def]
    shapes,
    reference,
    query,
    exists,
    level,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    NUMBERS: tl.constexpr,
):
    """Size of a level in pixels, and along x and y origin and scale of what is sampled there."""
    height = tl.load(shapes + 2 * level).to(tl.int32)
    width = tl.load(shapes + 2 * level + 1).to(tl.int32)
    point = reference + (query * LEVELS + level) * NUMBERS if NUMBERS else reference
    x_origin, x_scale = _frame(point, width, exists, POINTS, NUMBERS)
    y_origin, y_scale = _frame(point + 1 if NUMBERS else point, height, exists, POINTS, NUMBERS)
    return height, width, x_origin, x_scale, y_origin, y_scale


@triton.jit
def _frame(point, size, exists, POINTS: tl.constexpr, NUMBERS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Along one axis, in pixels: a place is sampled at ``origin + place * scale``."""
    if NUMBERS == 0:
        return -0.5, size.to(tl.float32)
    else:
        origin = tl.load(point, mask=exists, other=0.0).to(tl.float32) * size - 0.5
        if NUMBERS == 2:
            return origin, 1.0
        else:
            extent = tl.load(point + 2, mask=exists, other=0.0).to(tl.float32)
            return origin, extent * size * (0.5 / POINTS)


@triton.jit
def _axis(place, origin, scale, size, exists):  # type: ignore[no-untyped-def]
    """First pixel along one axis, distance from it, and whether the sample touches the map."""
    position = tl.load(place, mask=exists, other=0.0).to(tl.float32) * scale + origin
    touches = (position >= -1) & (position < size)  # false also for what is not a number
    position = tl.where(touches, position, 0.0)
    first = tl.floor(position)
    return first.to(tl.int32), position - first, touches


@triton.jit
def _corner(  # type: ignore[no-untyped-def]
    x,
    y,
    right,
    below,
    width,
    height,
    touches,
    OVER: tl.constexpr,
    DOWN: tl.constexpr,
):
    """Whether a pixel around each sample is on the map, and its shares along x and y."""
    # the first pixel of a sample that touches the map is at -1 or on it
    inside = touches & (x < width - 1 if OVER else x >= 0)
    inside = inside & (y < height - 1 if DOWN else y >= 0)
    return inside, right if OVER else 1 - right, below if DOWN else 1 - below


@triton.jit(do_not_specialize=_NUMBERS_OF_EACH_CALL)
def _forward_kernel(  # type: ignore[no-untyped-def]
    value,
    shapes,
    reference,
    places,
    weights,
    output,
    positions,
    queries,
    size_class,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    NUMBERS: tl.constexpr,
    BLOCK: tl.constexpr,
    SLOTS: tl.constexpr,
    ROWS: tl.constexpr,
    NEIGHBOURS: tl.constexpr,
):
    WIDTH: tl.constexpr = HEADS * CHANNELS
    SAMPLES: tl.constexpr = LEVELS * POINTS
    image, query, head = _place(queries, HEADS, ROWS, NEIGHBOURS)
    exists = query < queries
    row = query * HEADS + head
    before = image.to(tl.int64) * queries  # queries of the images before
    value += image.to(tl.int64) * positions * WIDTH
    places += before * (HEADS * SAMPLES * 2)
    weights += before * (HEADS * SAMPLES)
    output += before * WIDTH
    if NUMBERS:
        reference += before * (LEVELS * NUMBERS)
        largest, inverse = _softmax(weights, row, exists, SAMPLES, SLOTS)
    channel = tl.arange(0, BLOCK)[None, :]
    real = channel < CHANNELS
    column = head[:, None] * CHANNELS + channel
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    start = 0
    for level in range(LEVELS):
        height, width, x_origin, x_scale, y_origin, y_scale = _level(
            shapes, reference, query, exists, level, LEVELS, POINTS, NUMBERS
        )
        for point in tl.static_range(POINTS):
            sample = row * SAMPLES + level * POINTS + point
            place = places + 2 * sample
            x, right, x_touches = _axis(place, x_origin, x_scale, width, exists)
            y, below, y_touches = _axis(place + 1, y_origin, y_scale, height, exists)
            touches = exists & x_touches & y_touches
            weight = tl.load(weights + sample, mask=exists, other=0.0).to(tl.float32)
            if NUMBERS:
                weight = tl.exp(weight - largest)
            first = (start + y * width + x) * WIDTH
            for down in tl.static_range(2):
                for over in tl.static_range(2):
                    inside, x_share, y_share = _corner(
                        x, y, right, below, width, height, touches, over, down
                    )
                    at = (first + (down * width + over) * WIDTH)[:, None] + column
                    mask = inside[:, None] & real if BLOCK != CHANNELS else inside[:, None]
                    pixel = tl.load(value + at, mask=mask, other=0.0).to(tl.float32)
                    total += (weight * x_share * y_share)[:, None] * pixel
        start += height * width
    if NUMBERS:
        total *= inverse[:, None]
    tl.store(output + query[:, None] * WIDTH + column, total, mask=exists[:, None] & real)


@triton.jit
def _differentiate(  # type: ignore[no-untyped-def]
    value,
    grad_value,
    grad,
    weight,
    first,
    column,
    real,
    x,
    y,
    right,
    below,
    width,
    height,
    touches,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the gradient of the four pixels around each sample.

    Returns:
        Gradients of the weight, and of x and y in pixels for a weight of 1.
    """
    grad_weight = tl.zeros(weight.shape, tl.float32)
    grad_x, grad_y = grad_weight, grad_weight
    for down in tl.static_range(2):
        for over in tl.static_range(2):
            inside, x_share, y_share = _corner(
                x, y, right, below, width, height, touches, over, down
            )
            at = (first + (down * width + over) * WIDTH)[:, None] + column
            mask = inside[:, None] & real if BLOCK != CHANNELS else inside[:, None]
            product = tl.sum(
                grad * tl.load(value + at, mask=mask, other=0.0).to(tl.float32), axis=1
            )
            grad_weight += x_share * y_share * product
            grad_x += (1.0 if over else -1.0) * y_share * product
            grad_y += (1.0 if down else -1.0) * x_share * product
            added = (weight * x_share * y_share)[:, None] * grad
            # the default, acq_rel, would order all memory and put a barrier before each
            tl.atomic_add(
                grad_value + at, added.to(grad_value.dtype.element_ty), mask=mask, sem='relaxed'
            )
    return grad_weight, grad_x, grad_y


@triton.jit(do_not_specialize=_NUMBERS_OF_EACH_CALL)
def _backward_kernel(  # type: ignore[no-untyped-def]
    grad_output,
    value,
    shapes,
    reference,
    places,
    weights,
    output,
    grad_value,
    grad_places,
    grad_weights,
    positions,
    queries,
    size_class,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    NUMBERS: tl.constexpr,
    BLOCK: tl.constexpr,
    SLOTS: tl.constexpr,
    ROWS: tl.constexpr,
    NEIGHBOURS: tl.constexpr,
):
    WIDTH: tl.constexpr = HEADS * CHANNELS
    SAMPLES: tl.constexpr = LEVELS * POINTS
    image, query, head = _place(queries, HEADS, ROWS, NEIGHBOURS)
    exists = query < queries
    row = query * HEADS + head
    before = image.to(tl.int64) * queries  # queries of the images before
    value += image.to(tl.int64) * positions * WIDTH
    grad_value += image.to(tl.int64) * positions * WIDTH
    places += before * (HEADS * SAMPLES * 2)
    grad_places += before * (HEADS * SAMPLES * 2)
    weights += before * (HEADS * SAMPLES)
    grad_weights += before * (HEADS * SAMPLES)
    channel = tl.arange(0, BLOCK)[None, :]
    real = channel < CHANNELS
    column = head[:, None] * CHANNELS + channel
    own = query[:, None] * WIDTH + column
    mask = exists[:, None] & real
    grad = tl.load(grad_output + before * WIDTH + own, mask=mask, other=0.0).to(tl.float32)
    if NUMBERS:
        reference += before * (LEVELS * NUMBERS)
        largest, inverse = _softmax(weights, row, exists, SAMPLES, SLOTS)
        result = tl.load(output + before * WIDTH + own, mask=mask, other=0.0).to(tl.float32)
        mean = tl.sum(grad * result, axis=1)  # of the gradients of the weights, by weight
    slot = tl.arange(0, SLOTS)[None, :]
    start = 0
    for level in range(LEVELS):
        height, width, x_origin, x_scale, y_origin, y_scale = _level(
            shapes, reference, query, exists, level, LEVELS, POINTS, NUMBERS
        )
        # gradients of a level are gathered in rows as wide as the channels and stored together
        of_weights = tl.zeros((ROWS, SLOTS), tl.float32)
        of_places = tl.zeros((ROWS, SLOTS), tl.float32)
        for point in tl.static_range(POINTS):
            sample = row * SAMPLES + level * POINTS + point
            place = places + 2 * sample
            x, right, x_touches = _axis(place, x_origin, x_scale, width, exists)
            y, below, y_touches = _axis(place + 1, y_origin, y_scale, height, exists)
            touches = exists & x_touches & y_touches
            weight = tl.load(weights + sample, mask=exists, other=0.0).to(tl.float32)
            if NUMBERS:
                weight = tl.exp(weight - largest) * inverse
            first = (start + y * width + x) * WIDTH
            grad_weight, grad_x, grad_y = _differentiate(
                value,
                grad_value,
                grad,
                weight,
                first,
                column,
                real,
                x,
                y,
                right,
                below,
                width,
                height,
                touches,
                WIDTH,
                CHANNELS,
                BLOCK,
            )
            if NUMBERS:
                grad_weight = weight * (grad_weight - mean)
            of_weights = tl.where(slot == point, grad_weight[:, None], of_weights)
            grad_x, grad_y = grad_x * weight * x_scale, grad_y * weight * y_scale
            of_places = tl.where(slot == 2 * point, grad_x[:, None], of_places)
            of_places = tl.where(slot == 2 * point + 1, grad_y[:, None], of_places)
        at = (row * SAMPLES + level * POINTS)[:, None]
        tl.store(grad_weights + at + slot, of_weights, mask=exists[:, None] & (slot < POINTS))
        tl.store(grad_places + 2 * at + slot, of_places, mask=exists[:, None] & (slot < 2 * POINTS))
        start += height * width


def candidates(
    channels: int, element_size: int, atomics: bool, capability: tuple[int, int]
) -> list[triton.Config]:
    """What the tuner tries: rows of a program, which rows these are, and warps.

    A thread has 16 bytes of what is added atomically, or else of the values: reading and adding
    then go by the widest instructions. Without vectors of atomics, 4 bytes a thread are tried too.

    Args:
        channels: Of a head.
        element_size: Bytes of a number of the gradient of the values, or of the values.
        atomics: Whether it is for the backward pass.
        capability: Compute capability of the GPU.
    """
    block = max(triton.next_power_of_2(channels), 16)
    elements = [16 // element_size]
    if atomics and capability < _NATIVE_FROM:
        elements.append(1)
    return [
        triton.Config(
            {'ROWS': max(1, 32 * warps * e // block), 'NEIGHBOURS': neighbours}, num_warps=warps
        )
        for e in elements
        for warps in (4, 1)
        if e > 1 or 32 * warps >= block
        for neighbours in (False, True)
    ]


def _tuned(kernel: Any, tensor: str, **options: Any) -> Any:
    """A kernel that finds its configuration when it first meets a kind of input on a GPU.

    ``tensor`` is the argument of which a thread has 16 bytes. What was found is kept on disk, in
    Triton's cache, where Triton can.
    """
    atomics = tensor == 'grad_value'

    def fitting(_: object, arguments: dict[str, Any], **sizes: Any) -> list[triton.Config]:
        given = arguments[tensor]
        capability = torch.cuda.get_device_capability(given.device)
        return candidates(sizes['CHANNELS'], given.element_size(), atomics, capability)

    if 'cache_results' in inspect.signature(triton.autotune).parameters:
        options['cache_results'] = True
    configs = candidates(32, 4, atomics, _NATIVE_FROM)  # `fitting` replaces them
    key = ['size_class', 'HEADS', 'CHANNELS', 'LEVELS', 'POINTS', 'NUMBERS']
    return triton.autotune(
        configs[:1] if _INTERPRETED else configs,
        key,
        prune_configs_by={'early_config_prune': fitting},
        **options,
    )(kernel)


_run_forward = _tuned(_forward_kernel, 'value')
_run_backward = _tuned(_backward_kernel, 'grad_value', reset_to_zero=['grad_value'])


def forward(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Output in the dtype of the values."""
    return fused_forward(value, spatial_shapes, None, sampling_locations, attention_weights)


def backward(grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of value (float32 or of its dtype), locations and weights."""
    value, shapes, locations, weights = inputs
    return fused_backward(
        grad_output, None, value, shapes, None, locations, weights, locations.dtype
    )


def fused_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    reference_points: Tensor | None,
    offsets: Tensor,
    logits: Tensor,
) -> Tensor:
    """Output of `mpvit.ops.msda.fused.attend`, in the dtype of the values.

    Without reference points, offsets are sampling locations and logits attention weights.
    """
    batch, _, heads, channels = value.shape
    output = value.new_empty(batch, offsets.shape[1], heads * channels)
    tensors = _contiguous(value, spatial_shapes, reference_points, offsets, logits)
    with _on(value):
        _run_forward[_grid(batch)](*tensors, output, **_sizes(value, reference_points, offsets))
    return output


def fused_backward(
    grad_output: Tensor,
    output: Tensor | None,
    value: Tensor,
    spatial_shapes: Tensor,
    reference_points: Tensor | None,
    offsets: Tensor,
    logits: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, ...]:
    """Gradients of value, offsets (of this dtype) and logits for the output of `fused_forward`."""
    grads = (
        torch.zeros(value.shape, dtype=_summed_in(value), device=value.device),
        offsets.new_empty(offsets.shape, dtype=dtype),
        logits.new_empty(logits.shape),
    )
    tensors = _contiguous(value, spatial_shapes, reference_points, offsets, logits)
    with _on(value):
        _run_backward[_grid(len(value))](
            grad_output.contiguous(),
            *tensors,
            None if reference_points is None else output,
            *grads,
            **_sizes(value, reference_points, offsets),
        )
    return grads


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why it cannot serve values of this dtype on this device, or ``None`` if it can."""
    if dtype not in _DTYPES:
        return f'it computes in float32, too coarse for {str(dtype).removeprefix("torch.")}'
    if device.type != 'cuda' and not (device.type == 'cpu' and _INTERPRETED):
        return 'it needs a GPU'
    return None


def _summed_in(value: Tensor) -> torch.dtype:
    """Dtype in which the gradient of the values is added up."""
    chosen = os.environ.get(ATOMICS, 'float32')
    if chosen not in ('float32', 'native'):
        raise UserError(f'{ATOMICS}={chosen} is no choice; valid are float32 (default) and native')
    if chosen == 'float32' or value.dtype == torch.float32:
        return torch.float32
    if value.is_cuda and torch.cuda.get_device_capability(value.device) < _NATIVE_FROM:
        raise UserError(
            f'{ATOMICS}=native needs a GPU of compute capability 9.0 or later; unset it to add '
            'gradients in float32'
        )
    return value.dtype


def _contiguous(
    value: Tensor, shapes: Tensor, reference: Tensor | None, offsets: Tensor, logits: Tensor
) -> tuple[Tensor | None, ...]:
    """Inputs as the kernels want them; nothing waits for the GPU."""
    return (
        value.contiguous(),
        shapes.to(value.device, torch.int64).contiguous(),
        None if reference is None else reference.contiguous(),
        offsets.contiguous(),
        logits.contiguous(),
    )


def _grid(images: int) -> Callable[[dict[str, Any]], tuple[int]]:
    """How many programs there are, for a configuration of `candidates`."""

    def programs(sizes: dict[str, Any]) -> tuple[int]:
        queries, heads, rows = sizes['queries'], sizes['HEADS'], sizes['ROWS']
        if sizes['NEIGHBOURS']:
            return (images * heads * triton.cdiv(queries, rows),)
        return (images * triton.cdiv(queries * heads, rows),)

    return programs


def _sizes(value: Tensor, reference: Tensor | None, offsets: Tensor) -> dict[str, int]:
    _, positions, heads, channels = value.shape
    queries, levels, points = offsets.shape[1], offsets.shape[3], offsets.shape[4]
    largest = heads * max(positions * channels, queries * channels, queries * levels * points * 2)
    if largest > _MOST:
        raise UserError(
            f'the Triton kernels of deformable attention count up to {_MOST} numbers an image, '
            f'not {largest}; use smaller images or another backend (MPVIT_MSDA)'
        )
    return dict(
        positions=positions,
        queries=queries,
        size_class=(value.shape[0] * queries * heads).bit_length(),
        HEADS=heads,
        CHANNELS=channels,
        LEVELS=levels,
        POINTS=points,
        NUMBERS=0 if reference is None else reference.shape[-1],
        BLOCK=triton.next_power_of_2(channels),
        SLOTS=triton.next_power_of_2(max(channels, levels * points, 2 * points)),
    )


def _on(value: Tensor) -> contextlib.AbstractContextManager:
    """Launch on the device of the tensors, which need not be the current one."""
    return torch.cuda.device(value.device) if value.is_cuda else contextlib.nullcontext()
