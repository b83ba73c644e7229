"""A training step of the MPViT-S detector against the stock path: time and peak memory."""

from collections.abc import Sequence

from mmengine.optim import build_optim_wrapper

from benchmarks._timing import Action, Row, main, paired, peak_memory
from benchmarks.attention import backward_action
from benchmarks.models import (
    config_of,
    on_stock_attention,
    on_stock_path,
    our_model,
    stock_model,
    stock_optimizer,
    training_step,
)

CONFIG = 'mpvit_s_ddetr_50e'
SIZE, QUICK = (512, 640), (96, 128)
BATCH = 2
CHECKPOINTING = ('model.backbone.with_cp=True', 'model.encoder.num_cp=6')
STOCK = 'the stock path'


def our_step(size: tuple[int, int], quick: bool = False, options: Sequence[str] = ()) -> Action:
    """A step of the project's config.

    Args:
        size: Height and width of both images in pixels.
        quick: A small model.
        options: Changes of the config.
    """
    config = config_of(CONFIG, quick, options)
    model = our_model(config)
    return training_step(model, build_optim_wrapper(model, config.optim_wrapper), size, BATCH)


def stock_step(size: tuple[int, int], quick: bool = False) -> Action:
    """A step on the stock path, from the same weights."""
    config = config_of(CONFIG, quick)
    model = stock_model(config, our_model(config).state_dict())
    return on_stock_attention(training_step(model, stock_optimizer(config, model), size, BATCH))


def our_memory(size: tuple[int, int], quick: bool, options: Sequence[str]) -> Action:
    """`our_step` with attention kernels loaded already."""
    backward_action((64, 64))()
    return our_step(size, quick, options)


def rows(quick: bool) -> list[Row]:
    """Time and peak memory of a step."""
    size = QUICK if quick else SIZE
    runs = 2 if quick else 5
    what = f'training step, MPViT-S detector, {BATCH} images of {size[0]}x{size[1]}'
    stock_peak = peak_memory(stock_step, size, quick)
    table = []
    for options, name, time_target, memory_target in (
        ((), '', 2, 2),
        (CHECKPOINTING, ', activation checkpointing', None, 2),
    ):
        with on_stock_path(stock_step, size, quick) as theirs:
            pairs = paired(our_step(size, quick, options), theirs, runs)
        table.append(pairs.row(f'{what}{name}', STOCK, time_target))
        peak = peak_memory(our_memory, size, quick, options)
        note = f'{peak:.0f} MiB against {stock_peak:.0f} MiB'
        table.append(
            Row(f'its peak memory{name}', STOCK, stock_peak / peak, None, memory_target, note)
        )
    return table


if __name__ == '__main__':
    main(rows, __doc__)
