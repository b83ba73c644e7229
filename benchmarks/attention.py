"""Multi-scale deformable attention by itself, against mmcv's fallback in PyTorch."""

from collections.abc import Callable

import torch
from mmcv.ops import multi_scale_deform_attn
from torch import Tensor

from benchmarks._timing import Action, Row, main, paired, peak_memory
from benchmarks.models import FULL, SEED, on_stock_attention, on_stock_path

HEADS, CHANNELS, POINTS, LEVELS = 8, 32, 4, 4
TRAINING = (512, 640)
QUICK = (160, 192)


def level_shapes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Maps of strides 8, 16, 32 and 64, each rounded up."""
    shapes = [(-(-size[0] // 8), -(-size[1] // 8))]
    while len(shapes) < LEVELS:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def inputs_of(size: tuple[int, int], where: str = 'near') -> tuple[Tensor, ...]:
    """What an encoder layer attends with: values, shapes, locations, weights.

    Args:
        size: Height and width of the image in pixels.
        where: ``'near'`` samples within a few pixels of every query, as a trained encoder does;
            ``'anywhere'`` at random over the whole image.
    """
    generator = torch.Generator().manual_seed(SEED)
    shapes = level_shapes(size)
    queries = sum(h * w for h, w in shapes)
    value = torch.randn(1, queries, HEADS, CHANNELS, generator=generator)
    if where == 'near':
        locations = _near(shapes, generator)
    else:
        locations = torch.rand(1, queries, HEADS, LEVELS, POINTS, 2, generator=generator)
    weights = torch.randn(1, queries, HEADS, LEVELS * POINTS, generator=generator).softmax(-1)
    return value, torch.tensor(shapes), locations, weights.unflatten(-1, (LEVELS, POINTS))


def _near(shapes: list[tuple[int, int]], generator: torch.Generator) -> Tensor:
    grids = []
    for height, width in shapes:
        y, x = (torch.arange(n).add(0.5).div(n) for n in (height, width))
        grids.append(torch.stack(torch.meshgrid(y, x, indexing='ij')[::-1], -1).flatten(0, 1))
    points = torch.cat(grids)[None, :, None, None, None]
    size = torch.tensor(shapes).flip(-1)[None, None, None, :, None]
    offsets = torch.randn(1, points.size(1), HEADS, LEVELS, POINTS, 2, generator=generator)
    return points + 2 * offsets / size


def forward(inputs: tuple[Tensor, ...]) -> Tensor:
    """The attention that is in place: ours, or mmcv's under `stock_attention`."""
    return multi_scale_deform_attn.multi_scale_deformable_attn_pytorch(*inputs)


def forward_action(size: tuple[int, int], where: str = 'near') -> Action:
    """Forward without gradients."""
    inputs = inputs_of(size, where)

    @torch.no_grad()
    def run() -> Tensor:
        return forward(inputs)

    return run


def backward_action(size: tuple[int, int]) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward; gives the gradients of value, locations and weights."""
    value, shapes, locations, weights = inputs_of(size)
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    upstream = torch.randn(1, value.size(1), HEADS * CHANNELS)

    def run() -> tuple[Tensor, ...]:
        output = forward((leaves[0], shapes, *leaves[1:]))
        return torch.autograd.grad(output, leaves, upstream)

    return run


def stock_action(kind: str, size: tuple[int, int], where: str = 'near') -> Action:
    """Forward, or forward and backward, of mmcv's fallback."""
    action = forward_action(size, where) if kind == 'forward' else backward_action(size)
    return on_stock_attention(action)


def memory_action(size: tuple[int, int], stock: bool) -> Action:
    """Forward and backward, with kernels loaded already."""
    small, action = backward_action((64, 64)), backward_action(size)
    if stock:
        small, action = on_stock_attention(small), on_stock_attention(action)
    small()
    return action


def rows(quick: bool) -> list[Row]:
    """Time and memory of the operator."""
    full, training = (QUICK, QUICK) if quick else (FULL, TRAINING)
    runs = 3 if quick else 9
    against = "mmcv's fallback"
    table = []
    what = f'attention forward, encoder at {full[0]}x{full[1]}'
    for where, note in (('near', ''), ('anywhere', 'samples all over the image')):
        with on_stock_path(stock_action, 'forward', full, where) as theirs:
            pairs = paired(forward_action(full, where), theirs, runs)
        table.append(pairs.row(what, against, 10, note))
    what = f'attention forward + backward, encoder at {training[0]}x{training[1]}'
    with on_stock_path(stock_action, 'backward', training) as theirs:
        table.append(paired(backward_action(training), theirs, runs).row(what, against, 8))
    ours, theirs = (peak_memory(memory_action, training, stock) for stock in (False, True))
    note = f'{ours:.0f} MiB against {theirs:.0f} MiB'
    table.append(Row(f'its peak memory, {what}', against, theirs / ours, None, 5, note))
    return table


if __name__ == '__main__':
    main(rows, __doc__)
