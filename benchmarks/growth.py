"""How time and memory grow with the image, the batch, the queries and the threads."""

from collections.abc import Callable

import torch

from benchmarks._timing import Action, Row, main, paired, peak_memory
from benchmarks.attention import forward, forward_action, inputs_of
from benchmarks.models import (
    FULL,
    config_of,
    on_stock_attention,
    our_model,
    prediction,
    prepared,
)

CONFIG = 'mpvit_s_ddetr_50e'
TIME, MEMORY, FASTER = 'time', 'peak memory', 'speed'


def with_threads(action: Action, threads: int) -> Action:
    """The action on a number of torch's threads."""

    def run() -> object:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return action()
        finally:
            torch.set_num_threads(before)

    return run


def first_queries(size: tuple[int, int], share: float) -> Action:
    """Attention of a share of an encoder's queries to all of its values."""
    value, shapes, locations, weights = inputs_of(size)
    count = int(locations.size(1) * share)
    inputs = (value, shapes, locations[:, :count], weights[:, :count])

    @torch.no_grad()
    def run() -> object:
        return forward(inputs)

    return run


def detector_action(size: tuple[int, int], quick: bool = False, batch: int = 1) -> Action:
    """Inference of our detector with code loaded by a small image."""
    model = prepared(our_model(config_of(CONFIG, quick)))
    prediction(model, (64, 64))()
    return prediction(model, size, batch)


def _grown(what: str, quantity: str, small: Action, large: Action, runs: int) -> Row:
    return paired(small, large, runs).row(what, quantity)


def _thread_rows(actions: dict[str, Action], runs: int) -> list[Row]:
    threads = torch.get_num_threads()
    if threads == 1:
        return []
    return [
        paired(with_threads(action, threads), action_on_one, runs).row(
            f'{threads} threads after 1: {name}', FASTER
        )
        for name, action in actions.items()
        for action_on_one in [with_threads(action, 1)]
    ]


def _memory_row(what: str, small: tuple, large: tuple, build: Callable[..., Action]) -> Row:
    peaks = [peak_memory(build, *args) for args in (small, large)]
    note = f'{peaks[0]:.0f} MiB, then {peaks[1]:.0f} MiB'
    return Row(what, MEMORY, peaks[1] / peaks[0], None, None, note)


def rows(quick: bool) -> list[Row]:
    """Every ratio is large over small; for threads it is the gain in speed."""
    full, runs = ((128, 192), 2) if quick else (FULL, 3)
    quarter = (full[0] // 2, full[1] // 2)
    model = prepared(our_model(config_of(CONFIG, quick)))
    attention = forward_action(full)
    detector = prediction(model, quarter)
    pixels = f'4 times the pixels ({full[0]}x{full[1]}): MPViT-S detector'
    batch = f'batch 2 after 1: MPViT-S detector at {quarter[0]}x{quarter[1]}'
    queries = 'all queries after a quarter: attention forward'
    table = [
        _grown(pixels, TIME, detector, prediction(model, full), runs),
        _memory_row(pixels, (quarter, quick), (full, quick), detector_action),
        _grown(batch, TIME, detector, prediction(model, quarter, 2), runs),
        _memory_row(batch, (quarter, quick), (quarter, quick, 2), detector_action),
        _grown(queries, TIME, first_queries(full, 0.25), attention, 3 * runs),
        _memory_row(queries, (full, 0.25), (full, 1.0), first_queries),
    ]
    return table + _thread_rows(
        {
            'attention forward': attention,
            "mmcv's fallback of it": on_stock_attention(attention),
            'MPViT-S detector': detector,
        },
        runs,
    )


if __name__ == '__main__':
    main(rows, __doc__)
