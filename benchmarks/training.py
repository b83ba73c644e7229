"""A training step of the MPViT-S detector against the stock path: time and peak memory."""

from collections.abc import Iterator, Sequence

from mmengine.optim import build_optim_wrapper

from benchmarks._machine import has_bf16
from benchmarks._timing import STOCK, Action, Contender, Row, in_turn, peak_memory
from benchmarks.attention import backward_action
from benchmarks.models import (
    config_of,
    on_stock_attention,
    our_model,
    stock_model,
    stock_optimizer,
    training_step,
)
from mpvit.config.presets import enable_amp

CONFIG = 'mpvit_s_ddetr_50e'
SIZE, QUICK = (512, 640), (96, 128)
BATCH = 2
CHECKPOINTING = ('model.backbone.with_cp=True', 'model.encoder.num_cp=6')
AGAINST = 'the stock path, fp32'
# Name of a variant: options of the config, precision, least ratios of time and of memory.
VARIANTS: dict[str, tuple[Sequence[str], str, float | None, float]] = {
    'fp32': ((), 'fp32', 2.8, 2),
    'bf16 autocast': ((), 'bf16', 5.5, 2),
    'fp32, activation checkpointing': (CHECKPOINTING, 'fp32', None, 3),
}


def our_step(
    size: tuple[int, int], quick: bool = False, options: Sequence[str] = (), amp: str = 'fp32'
) -> Action:
    """A step of the project's config.

    Args:
        size: Height and width of both images in pixels.
        quick: A small model.
        options: Changes of the config.
        amp: ``'fp32'``, or ``'bf16'`` for autocast.
    """
    config = config_of(CONFIG, quick, options)
    if amp != 'fp32':
        enable_amp(config, amp)
    model = our_model(config)
    backward_action('fp32', (64, 64))()  # loads the kernels of attention
    return training_step(model, build_optim_wrapper(model, config.optim_wrapper), size, BATCH)


def stock_step(size: tuple[int, int], quick: bool = False) -> Action:
    """A step on the stock path, from the same weights."""
    config = config_of(CONFIG, quick)
    model = stock_model(config, our_model(config).state_dict())
    return on_stock_attention(training_step(model, stock_optimizer(config, model), size, BATCH))


def two_steps(build: str, *args: object) -> Action:
    """Two steps in a row: from the second on the optimizer has its state."""
    step = stock_step(*args) if build == 'stock' else our_step(*args)
    return lambda: [step() for _ in range(2)]


def rows(quick: bool) -> Iterator[Row]:
    """Time and peak memory of a step."""
    size = QUICK if quick else SIZE
    what = f'training step, MPViT-S detector, {BATCH} images of {size[0]}x{size[1]}'
    variants = {n: v for n, v in VARIANTS.items() if v[1] == 'fp32' or has_bf16()}
    stock_path = Contender(stock_step, (size, quick), STOCK)
    for name, (*settings, target, _) in VARIANTS.items():
        if name not in variants:
            note = 'this CPU has no bf16 arithmetic'
            yield Row(f'{what}, {name}', AGAINST, None, None, target, note)
            continue
        # two at a time: all of them together take 20 GB
        pair = {name: Contender(our_step, (size, quick, *settings)), 'stock': stock_path}
        yield in_turn(pair, 2 if quick else 4, 45).row(
            f'{what}, {name}', AGAINST, (name, 'stock'), target
        )
    stock = peak_memory(Contender(two_steps, ('stock', size, quick), STOCK))
    for name, (options, amp, _, target) in variants.items():
        ours = peak_memory(Contender(two_steps, ('ours', size, quick, options, amp)))
        note = (
            f'{ours.resident:.0f} MiB against {stock.resident:.0f} MiB; beside model and code '
            f'{ours.added:.0f} MiB against {stock.added:.0f} MiB'
        )
        ratio = stock.resident / ours.resident
        yield Row(f'peak resident memory of that, {name}', AGAINST, ratio, None, target, note)
