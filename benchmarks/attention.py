"""Multi-scale deformable attention by itself, against the rivals' operators."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks._machine import has_bf16
from benchmarks._synthetic import FULL, SEED
from benchmarks._timing import STOCK, Action, Contender, Row, in_turn, peak_memory
from benchmarks.rivals import ATTENTION
from mpvit.ops.msda.op import ms_deform_attn

HEADS, CHANNELS, POINTS, LEVELS = 8, 32, 4, 4
TRAINING = (512, 640)
QUICK = (160, 192)
OURS = {'THP_MEM_ALLOC_ENABLE': '1'}  # as `mpvit.register` sets it, without which this runs
BF16_TARGET = 3.5
OPERATORS = {'fp32': ms_deform_attn, 'bf16': ms_deform_attn}
OPERATORS |= {rival.name: rival.build for rival in ATTENTION}


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


def forward_action(name: str, size: tuple[int, int], where: str = 'near') -> Action:
    """Forward without gradients, by one of `OPERATORS`."""
    value, *rest = inputs_of(size, where)
    inputs = (value.bfloat16() if name == 'bf16' else value, *rest)

    @torch.no_grad()
    def run() -> list[Tensor]:
        return [OPERATORS[name](*inputs)]

    return run


def backward_action(name: str, size: tuple[int, int]) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward; gives the gradients of value, locations and weights."""
    value, shapes, locations, weights = inputs_of(size)
    value = value.bfloat16() if name == 'bf16' else value
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    generator = torch.Generator().manual_seed(SEED)
    shape = (1, value.size(1), HEADS * CHANNELS)
    upstream = torch.randn(shape, generator=generator).to(value.dtype)

    def run() -> tuple[Tensor, ...]:
        output = OPERATORS[name](leaves[0], shapes, *leaves[1:])
        return torch.autograd.grad(output, leaves, upstream)

    return run


def memory_action(name: str, size: tuple[int, int]) -> Action:
    """Forward and backward, with kernels loaded already."""
    backward_action(name, (64, 64))()
    return backward_action(name, size)


def compared(what: str, build: Callable[..., Action], rest: tuple, runs: int) -> Iterator[Row]:
    """Time of ours, in both precisions, and of all rivals in turn."""
    ours = ['fp32', 'bf16'] if has_bf16() else ['fp32']
    contenders = {name: Contender(build, (name, *rest), OURS) for name in ours}
    for rival in ATTENTION:
        if not rival.missing:
            contenders[rival.name] = Contender(build, (rival.name, *rest), STOCK)
    turns = in_turn(contenders, runs, 30)
    for rival in ATTENTION:
        target = rival.targets[build is backward_action]
        if rival.missing:
            yield Row(what, rival.name, None, None, target, rival.missing)
            continue
        yield turns.row(what, rival.name, ('fp32', rival.name), target)
    if not has_bf16():
        note = 'this CPU has no bf16 arithmetic'
        yield Row(f'{what}, bf16 values', rival.name, None, None, BF16_TARGET, note)
    elif not rival.missing:
        against = f'{rival.name}, fp32'
        yield turns.row(f'{what}, bf16 values', against, ('bf16', rival.name), BF16_TARGET)


def rows(quick: bool) -> Iterator[Row]:
    """Time and memory of the operator."""
    full, training = (QUICK, QUICK) if quick else (FULL, TRAINING)
    runs = 2 if quick else 25
    what = f'attention forward, encoder at {full[0]}x{full[1]}'
    yield from compared(what, forward_action, (full,), runs)
    yield from compared(f'{what}, samples all over it', forward_action, (full, 'anywhere'), runs)
    what = f'attention forward + backward, encoder at {training[0]}x{training[1]}'
    yield from compared(what, backward_action, (training,), runs)
    ours = peak_memory(Contender(memory_action, ('fp32', training), OURS)).added
    for rival, target in zip(ATTENTION, (5, None), strict=True):
        if not rival.missing:
            theirs = peak_memory(Contender(memory_action, (rival.name, training), STOCK)).added
            note = f'{ours:.0f} MiB against {theirs:.0f} MiB'
            yield Row(f'memory of {what}', rival.name, theirs / ours, None, target, note)
