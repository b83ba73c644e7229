"""Ways to compile deformable attention on the CPU: what each takes to start, and how fast it is.

Candidates compute the forward pass of the same inputs: our kernel (Numba with LLVM vectors), the
same loops in plain Numba, `torch.compile` of a formulation by gathers, and C compiled on first use.
"""

import ctypes
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numba import njit
from torch import Tensor

from benchmarks._timing import Row, main, paired
from benchmarks.attention import QUICK, inputs_of, on_stock_attention
from benchmarks.attention import forward as stock_forward
from benchmarks.models import FULL
from mpvit.ops import cpu

Forward = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
C_SOURCE = r"""
#include <math.h>
#include <stdint.h>
#define C %d
void forward(const float *restrict value, const int64_t *shapes, const int64_t *starts,
             const float *restrict loc, const float *restrict weight, float *restrict out,
             int64_t tokens, int64_t queries, int64_t heads, int64_t levels, int64_t points,
             int64_t first, int64_t last) {
  for (int64_t row = first; row < last; row++)
    for (int64_t head = 0; head < heads; head++) {
      float sum[C] = {0};
      const float *values = value + (row / queries * tokens * heads + head) * C;
      int64_t sample = (row * heads + head) * levels * points;
      for (int64_t level = 0; level < levels; level++) {
        const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
        for (int64_t p = 0; p < points; p++, sample++) {
          const float x = loc[2 * sample] * width - .5f, y = loc[2 * sample + 1] * height - .5f;
          if (!(x > -1 && y > -1 && x < width && y < height)) continue;
          const int left = floorf(x), top = floorf(y);
          for (int corner = 0; corner < 4; corner++) {
            const int column = left + corner %% 2, line = top + corner / 2;
            if (column < 0 || column >= width || line < 0 || line >= height) continue;
            const float w = weight[sample] * (1 - fabsf(x - column)) * (1 - fabsf(y - line));
            const float *pixel = values + (starts[level] + line * width + column) * heads * C;
            for (int c = 0; c < C; c++) sum[c] += w * pixel[c];
          }
        }
      }
      for (int c = 0; c < C; c++) out[(row * heads + head) * C + c] = sum[c];
    }
}
"""


def in_threads(rows: int, work: Callable[[int, int], None]) -> None:
    """Deal rows out to as many Python threads as torch uses."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        ends = [rows * i // threads for i in range(threads + 1)]
        list(pool.map(work, ends, ends[1:]))


def starts_of(shapes: Tensor) -> Tensor:
    """First token of every level."""
    sizes = shapes.prod(1)
    return sizes.cumsum(0) - sizes


def with_c(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """C through ctypes, compiled when the library is not there."""
    batch, tokens, heads, channels = value.shape
    queries, levels, points = (locations.shape[i] for i in (1, 3, 4))
    output = torch.empty(batch, queries, heads * channels)
    tensors = (value, shapes, starts_of(shapes), locations, weights, output)
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    sizes = (tokens, queries, heads, levels, points)
    function = c_library(channels).forward

    def work(first: int, last: int) -> None:
        function(*pointers, *(ctypes.c_int64(n) for n in (*sizes, first, last)))

    in_threads(batch * queries, work)
    return output


_libraries: dict[int, ctypes.CDLL] = {}


def c_library(channels: int) -> ctypes.CDLL:
    """The C kernel for a number of channels."""
    if channels not in _libraries:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / 'kernel.c', Path(folder) / 'kernel.so'
            source.write_text(C_SOURCE % channels)
            flags = ['-O3', '-march=native', '-ffast-math', '-shared', '-fPIC']
            subprocess.run(['gcc', *flags, source, '-o', target, '-lm'], check=True)
            _libraries[channels] = ctypes.CDLL(str(target))
    return _libraries[channels]


@njit(nogil=True, fastmath=True, error_model='numpy')
def plain_rows(value, shapes, starts, locations, weights, output, first, last):
    """Numba as one writes it at first; left to LLVM to vectorise."""
    queries, heads, levels, points = locations.shape[1:5]
    for row in range(first, last):
        image, query = row // queries, row % queries
        for head in range(heads):
            for level in range(levels):
                height, width = shapes[level]
                for point in range(points):
                    x = locations[image, query, head, level, point, 0] * width - 0.5
                    y = locations[image, query, head, level, point, 1] * height - 0.5
                    if not (x > -1 and y > -1 and x < width and y < height):
                        continue
                    left, top = math.floor(x), math.floor(y)
                    for corner in range(4):
                        column, line = left + corner % 2, top + corner // 2
                        if 0 <= column < width and 0 <= line < height:
                            near = (1 - abs(x - column)) * (1 - abs(y - line))
                            w = np.float32(weights[image, query, head, level, point] * near)
                            token = starts[level] + line * width + column
                            for c in range(value.shape[3]):
                                output[image, query, head, c] += w * value[image, token, head, c]


def with_plain_numba(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The kernel without vectors of its own."""
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    output = torch.zeros(batch, queries, heads, channels)
    arrays = [t.numpy() for t in (value, shapes, starts_of(shapes), locations, weights, output)]
    in_threads(batch * queries, lambda first, last: plain_rows(*arrays, first, last))
    return output.flatten(2)


def by_gathers(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Deformable attention by indexing, which a compiler can fuse into one loop."""
    size = shapes.flip(1).view(1, 1, 1, -1, 1, 2).to(value.dtype)
    position = locations * size - 0.5
    low = position.floor()
    output = torch.zeros(value.shape[0], locations.shape[1], *value.shape[2:])
    batch = torch.arange(value.shape[0]).view(-1, 1, 1, 1, 1)
    head = torch.arange(value.shape[2]).view(1, 1, -1, 1, 1)
    for corner in range(4):
        cell = low + torch.tensor([corner % 2, corner // 2])
        near = (1 - (position - cell).abs()).prod(-1) * weights
        inside = ((cell >= 0) & (cell < size)).all(-1)
        column, line = cell.clamp(torch.zeros(2), size - 1).long().unbind(-1)
        token = starts_of(shapes).view(1, 1, 1, -1, 1) + line * shapes[:, 1].view(-1, 1) + column
        pixels = value[batch, token, head]  # (B, queries, heads, levels, points, C)
        output = output + (pixels * (near * inside).unsqueeze(-1)).sum((3, 4))
    return output.flatten(2)


def rows(quick: bool) -> list[Row]:
    """Forward time of every candidate against mmcv's fallback, and its first call."""
    inputs = inputs_of(QUICK if quick else FULL)
    compiled = torch.compile(by_gathers)
    candidates: dict[str, Forward] = {
        'Numba with LLVM vectors (chosen)': cpu.forward,
        'Numba, plain loops': with_plain_numba,
    }
    if shutil.which('gcc'):
        candidates['C, compiled on first use'] = with_c
    if shutil.which('g++') and not quick:  # takes a minute to compile
        candidates['torch.compile of gathers'] = compiled
    expected = on_stock_attention(lambda: stock_forward(inputs))()
    table = []
    for name, candidate in candidates.items():
        with torch.no_grad():
            start = time.perf_counter()
            output = candidate(*inputs)
            first = time.perf_counter() - start
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
            pairs = paired(
                lambda candidate=candidate: candidate(*inputs),
                on_stock_attention(lambda: stock_forward(inputs)),
                3,
            )
        note = f'first call {first:.1f} s'
        table.append(pairs.row(f'forward in {name}', "mmcv's fallback", None, note))
    return table


if __name__ == '__main__':
    main(rows, __doc__)
