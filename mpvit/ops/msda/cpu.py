"""Multi-scale deformable attention on the CPU, forward and backward, compiled by Numba.

Equation 3 of "Deformable DETR" (Zhu et al., ICLR 2021), as in `mpvit.ops.msda.reference`, in one
pass: what is read is the values at the corners of each sample, what is written is the result.
Nothing of size queries x points x channels is stored. Each input may be float32, bfloat16 or
float16; sums are float32.

* The loop over the channels of a head is LLVM vector arithmetic of exactly that width
  (`weighted_sum`, `dots_and_sums`); left to LLVM's vectoriser it takes twice as long.
* Threads are those of `mpvit.ops.threads`, as many as torch's.
* Values are copied into the order of heads first, so that what neighbouring queries read stays in
  the cache. All else is read and written where it is, once.
* The backward pass deals out heads of images, whose gradients do not overlap: no atomics, the same
  result every time, and at most as many threads as there are heads x images.
* Compiled on the first call for a number of channels, in about two seconds, and cached on disk.

docs/benchmarks.md says why Numba, with figures.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpvit.ops.elements import DTYPES, flat, load, store
from mpvit.ops.msda.llvm_vectors import copy, dots_and_sums, weighted_sum
from mpvit.ops.threads import chunks, compiled, run

_INLINE_SAMPLES = 1 << 16  # below this many samples, waking threads costs more than it saves
_TASKS_PER_THREAD = 4  # more than one, so that all threads end together


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why it cannot serve values of this dtype on this device, or ``None`` if it can."""
    if device.type != 'cpu':
        return f'the cpu backend takes CPU tensors, not {device.type}'
    if dtype not in DTYPES:
        return f'the cpu backend takes float32, bfloat16 and float16, not {dtype}'
    return None


def forward(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples, as `mpvit.ops.msda.reference.forward` gives it.

    Nothing is differentiated.
    """
    batch, tokens, heads, channels = value.shape
    queries, levels, points = (sampling_locations.shape[i] for i in (1, 3, 4))
    output = torch.empty(batch, queries, heads * channels, dtype=value.dtype, device='cpu')
    arrays = (
        flat(_by_head(value)),
        _sample_table(spatial_shapes, points),
        flat(sampling_locations.contiguous()),
        flat(attention_weights.contiguous()),
        flat(output),
        tokens,
        queries,
        heads,
    )
    pairs = batch * heads
    parts = -(-_TASKS_PER_THREAD * torch.get_num_threads() // pairs)
    tasks = [
        (pair, queries * i // parts, queries * (i + 1) // parts)
        for pair in range(pairs)
        for i in range(parts)
    ]
    samples = pairs * queries * levels * points
    run(_forward_kernel(channels), arrays, tasks, inline=samples < _INLINE_SAMPLES)
    return output


def backward(grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of value, locations and weights, each of the dtype of its input."""
    value, spatial_shapes, sampling_locations, attention_weights = inputs
    batch, tokens, heads, channels = value.shape
    queries, levels, points = (sampling_locations.shape[i] for i in (1, 3, 4))
    sums = torch.zeros(batch, heads, tokens, channels, dtype=torch.float32, device='cpu')
    locations, weights = sampling_locations.contiguous(), attention_weights.contiguous()
    grad_locations, grad_weights = torch.empty_like(locations), torch.empty_like(weights)
    arrays = (
        flat(grad_output.contiguous()),
        flat(_by_head(value)),
        _sample_table(spatial_shapes, points),
        flat(locations),
        flat(weights),
        flat(sums),
        flat(grad_locations),
        flat(grad_weights),
        tokens,
        queries,
        heads,
    )
    tasks = [(pair,) for pair in range(batch * heads)]
    samples = len(tasks) * queries * levels * points
    run(_backward_kernel(channels), arrays, tasks, inline=samples < _INLINE_SAMPLES)
    grad_value = torch.empty(value.shape, dtype=value.dtype, device='cpu')
    _copy_rows(sums, grad_value, to_heads=False)
    return grad_value, grad_locations, grad_weights


def _by_head(value: Tensor) -> Tensor:
    """``(B, tokens, heads, C)`` as ``(B, heads, tokens, C)``."""
    batch, tokens, heads, channels = value.shape
    copied = value.new_empty(batch, heads, tokens, channels)
    _copy_rows(value.contiguous(), copied, to_heads=True)
    return copied


def _copy_rows(source: Tensor, target: Tensor, to_heads: bool) -> None:
    """Copy into the order of heads first, or back."""
    batch, tokens, heads, channels = (source if to_heads else target).shape
    arrays = (flat(source), flat(target), tokens, heads)
    tasks = chunks(batch * tokens, _TASKS_PER_THREAD)
    inline = batch * tokens * heads < _INLINE_SAMPLES
    run(_copy_kernel(channels, to_heads), arrays, tasks, inline=inline)


def _sample_table(spatial_shapes: Tensor, points: int) -> Any:
    """Width, height and first pixel of the level of every sample of a query, three rows."""
    shapes = spatial_shapes.detach().cpu().numpy()
    sizes = shapes.prod(axis=1)
    table = np.stack([shapes[:, 1], shapes[:, 0], sizes.cumsum() - sizes])
    return np.ascontiguousarray(table.repeat(points, axis=1), dtype=np.float32)


@compiled
def _between(low: Any, size: Any) -> Any:
    """The two pixels from ``low`` on, kept on the map, and whether each lies there: 1 or 0."""
    last = size - np.float32(1)
    high = low + np.float32(1)
    has_low = np.float32(1) if 0 <= low <= last else np.float32(0)
    has_high = np.float32(1) if 0 <= high <= last else np.float32(0)
    low = low if low > 0 else np.float32(0)  # NaN becomes 0: safe to read
    high = high if high > 0 else np.float32(0)
    return low if low < last else last, high if high < last else last, has_low, has_high


@compiled
def _find_corners(
    locations: Any, weights: Any, samples: Any, first: int, indices: Any, products: Any
) -> None:
    """The four pixels around each sample of a query and head, and what each counts.

    Without branches, so that LLVM takes several samples at a time. Positions are whole numbers in
    float32, exact for maps of up to 2 ** 24 pixels.

    Args:
        locations: ``(x, y)`` in [0, 1] of all samples, flat.
        weights: Attention weights of all samples, flat.
        samples: Width, height and first pixel of the level of each sample, three rows.
        first: The first sample.
        indices: Takes the pixels, four rows.
        products: Takes attention weight times bilinear weight, four rows; 0 off the map.
    """
    for i in range(samples.shape[1]):
        at = first + i
        width, height, start = samples[0, i], samples[1, i], samples[2, i]
        x = load(locations, 2 * at) * width - np.float32(0.5)
        y = load(locations, 2 * at + 1) * height - np.float32(0.5)
        weight = load(weights, at)
        weight = weight if x == x and y == y else np.float32(np.nan)  # NaN in, NaN out
        x_low, y_low = np.floor(x), np.floor(y)
        left, right, has_left, has_right = _between(x_low, width)
        top, bottom, has_top, has_bottom = _between(y_low, height)
        # off the map a distance may be infinite: choose, do not multiply by 0
        x1 = x - x_low if has_right else np.float32(0)
        x0 = np.float32(1) - (x - x_low) if has_left else np.float32(0)
        y1 = weight * (y - y_low) if has_bottom else np.float32(0)
        y0 = weight * (np.float32(1) - (y - y_low)) if has_top else np.float32(0)
        indices[0, i] = np.int32(start + top * width + left)
        indices[1, i] = np.int32(start + top * width + right)
        indices[2, i] = np.int32(start + bottom * width + left)
        indices[3, i] = np.int32(start + bottom * width + right)
        products[0, i] = y0 * x0
        products[1, i] = y0 * x1
        products[2, i] = y1 * x0
        products[3, i] = y1 * x1


@compiled
def _differentiate_samples(
    locations: Any,
    weights: Any,
    samples: Any,
    first: int,
    dots: Any,
    grad_locations: Any,
    grad_weights: Any,
) -> None:
    """Gradients of locations and weights from those of the four pixels around each sample.

    ``dots`` is the gradient of the output times the pixels of `_find_corners`, four rows.
    """
    for i in range(samples.shape[1]):
        at = first + i
        width, height = samples[0, i], samples[1, i]
        x = load(locations, 2 * at) * width - np.float32(0.5)
        y = load(locations, 2 * at + 1) * height - np.float32(0.5)
        x_low, y_low = np.floor(x), np.floor(y)
        _, _, has_left, has_right = _between(x_low, width)
        _, _, has_top, has_bottom = _between(y_low, height)
        is_near = has_left + has_right > 0 and has_top + has_bottom > 0
        x1 = x - x_low if is_near else np.float32(0)
        y1 = y - y_low if is_near else np.float32(0)
        x0, y0 = np.float32(1) - x1, np.float32(1) - y1
        d00, d01 = has_top * has_left * dots[0, i], has_top * has_right * dots[1, i]
        d10, d11 = has_bottom * has_left * dots[2, i], has_bottom * has_right * dots[3, i]
        store(grad_weights, at, y0 * (x0 * d00 + x1 * d01) + y1 * (x0 * d10 + x1 * d11))
        slope_x = y0 * (d01 - d00) + y1 * (d11 - d10)
        slope_y = x0 * (d10 - d00) + x1 * (d11 - d01)
        weight = load(weights, at)
        store(grad_locations, 2 * at, weight * slope_x * width)
        store(grad_locations, 2 * at + 1, weight * slope_y * height)


@functools.cache
def _forward_kernel(channels: int) -> Callable[..., None]:
    @compiled
    def kernel(
        value: Any,
        samples: Any,
        locations: Any,
        weights: Any,
        output: Any,
        tokens: int,
        queries: int,
        heads: int,
        pair: int,
        first: int,
        last: int,
    ) -> None:
        """Queries ``first`` to ``last`` of a pair of image and head, ``image * heads + head``."""
        count = samples.shape[1]
        indices = np.empty((4, count), np.int32)
        products = np.empty((4, count), np.float32)
        image, head, base = pair // heads, pair % heads, pair * tokens * channels
        for query in range(first, last):
            row = (image * queries + query) * heads + head
            _find_corners(locations, weights, samples, row * count, indices, products)
            weighted_sum(
                value, base, indices, products, 4 * count, output, row * channels, channels
            )

    return kernel


@functools.cache
def _backward_kernel(channels: int) -> Callable[..., None]:
    @compiled
    def kernel(
        grad_output: Any,
        value: Any,
        samples: Any,
        locations: Any,
        weights: Any,
        grad_value: Any,
        grad_locations: Any,
        grad_weights: Any,
        tokens: int,
        queries: int,
        heads: int,
        pair: int,
    ) -> None:
        """All queries of a pair of image and head, ``image * heads + head``."""
        count = samples.shape[1]
        indices = np.empty((4, count), np.int32)
        products = np.empty((4, count), np.float32)
        dots = np.empty((4, count), np.float32)
        image, head, base = pair // heads, pair % heads, pair * tokens * channels
        for query in range(queries):
            row = (image * queries + query) * heads + head
            _find_corners(locations, weights, samples, row * count, indices, products)
            dots_and_sums(
                grad_output,
                row * channels,
                value,
                grad_value,
                base,
                indices,
                products,
                4 * count,
                dots,
                channels,
            )
            _differentiate_samples(
                locations, weights, samples, row * count, dots, grad_locations, grad_weights
            )

    return kernel


@functools.cache
def _copy_kernel(channels: int, to_heads: bool) -> Callable[..., None]:
    @compiled
    def kernel(source: Any, target: Any, tokens: int, heads: int, first: int, last: int) -> None:
        """Tokens ``first`` to ``last`` of all images."""
        for token in range(first, last):
            image = token // tokens
            for head in range(heads):
                by_token = (token * heads + head) * channels
                by_head = ((image * heads + head) * tokens + token - image * tokens) * channels
                if to_heads:
                    copy(source, by_token, target, by_head, channels)
                else:
                    copy(source, by_head, target, by_token, channels)

    return kernel
