"""Measuring two things in turn, peak memory, and the rows that scripts hand to the table."""

import argparse
import gc
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

Action = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What is measured.
        against: What it is compared with.
        ratio: How many times better ``what`` is; None where it could not be measured.
        spread: Lowest and highest ratio of single pairs of runs; None for a single measurement.
        target: Ratio to be reached; None for a figure that only informs.
        note: What else is to be known, such as absolute figures.
        unit: ``'x'``, or ``'%'`` for a share, whose ratio and target then lie in [0, 1].
    """

    what: str
    against: str
    ratio: float | None
    spread: tuple[float, float] | None = None
    target: float | None = None
    note: str = ''
    unit: str = 'x'


@dataclass(frozen=True)
class Pairs:
    """Seconds of two actions that ran in turn, one entry per pair of runs."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours was, in each pair."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """Median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """Lowest and highest of the ratios."""
        return min(self.ratios), max(self.ratios)

    @property
    def seconds(self) -> str:
        """Median seconds of both, for a note."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        return f'{ours:.3g} s against {theirs:.3g} s'

    def row(self, what: str, against: str, target: float | None = None, note: str = '') -> Row:
        """The row of these pairs."""
        note = f'{self.seconds}; {note}' if note else self.seconds
        return Row(what, against, self.ratio, self.spread, target, note)


def seconds(action: Action) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def paired(ours: Action, theirs: Action, runs: int = 5, warmup: int = 1) -> Pairs:
    """Time two actions in turn; who goes first changes from pair to pair.

    Args:
        ours: What is measured.
        theirs: What it is compared with.
        runs: Pairs of runs.
        warmup: Calls of each before, which are not timed.
    """
    for _ in range(warmup):
        ours()
        theirs()
    times: dict[Action, list[float]] = {ours: [], theirs: []}
    for run in range(runs):
        gc.collect()
        for action in (ours, theirs) if run % 2 == 0 else (theirs, ours):
            times[action].append(seconds(action))
    return Pairs(times[ours], times[theirs])


def in_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a module-level function in a fresh process and return what it returns.

    Raises:
        BrokenProcessPool: The process died, for instance for want of memory.
    """
    context = get_context('forkserver')  # imports what is slow to import once for all processes
    context.set_forkserver_preload(['benchmarks.models'])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


@contextmanager
def elsewhere(build: Callable[..., Action], *args: Any, **environment: str) -> Iterator[Action]:
    """An action in a process of its own, for what a process decides once and for all.

    Args:
        build: Module-level function that makes the action from ``args``.
        args: Its arguments; they travel to the other process.
        environment: Variables of the other process.

    Yields:
        What runs the action there and waits for it; gives back nothing.
    """
    import torch

    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        try:
            pool.submit(_keep, build, args, torch.get_num_threads()).result()
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
        yield lambda: pool.submit(_run_kept).result()


_kept: list[Action] = []  # in the other process


def _keep(build: Callable[..., Action], args: tuple[Any, ...], threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    _kept.append(build(*args))


def _run_kept() -> None:
    _kept[-1]()


def peak_memory(build: Callable[..., Action], *args: Any) -> float:
    """MiB that an action adds at its peak to a process of its own, at least 1; Linux only.

    Args:
        build: Module-level function that makes the action from ``args``. What it allocates itself
            (models, inputs, code) does not count.
        args: Its arguments; they travel to the other process.
    """
    import torch

    return in_process(_added_peak, build, args, torch.get_num_threads())


def _added_peak(build: Callable[..., Action], args: tuple[Any, ...], threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    action = build(*args)
    gc.collect()
    Path('/proc/self/clear_refs').write_text('5')  # the high-water mark starts anew from here
    before = _status('VmRSS')
    action()
    return max((_status('VmHWM') - before) / 1024, 1.0)  # less may hide in freed memory


def _status(field: str) -> int:
    """An entry of this process's memory, in KiB."""
    match = re.search(rf'{field}:\s+(\d+) kB', Path('/proc/self/status').read_text())
    return int(match[1])


def markdown(rows: list[Row]) -> str:
    """Rows as a markdown table."""
    lines = ['| what | against | measured | at least | |', '|---|---|---|---|---|']
    return '\n'.join(lines + [_line(row) for row in rows])


def _line(row: Row) -> str:
    if row.ratio is None:
        measured = 'not measured'
    else:
        measured = f'**{_figure(row.ratio, row.unit)}**'
        if row.spread:
            low, high = (_figure(end, row.unit) for end in row.spread)
            measured += f' ({low} to {high})'
    target = '' if row.target is None else _figure(row.target, row.unit)
    if row.ratio is not None and row.target is not None:
        target += ', reached' if row.ratio >= row.target else ', **missed**'
    return f'| {row.what} | {row.against} | {measured} | {target} | {row.note} |'


def _figure(value: float, unit: str) -> str:
    if unit == '%':
        return f'{100 * value:.0f} %'
    return f'{value:.3g}x'


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all scripts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--quick', action='store_true', help='small sizes: does it run at all?')
    parser.add_argument('--threads', type=int, help='threads of torch; default: all cores')
    return parser


def main(rows: Callable[[bool], list[Row]], description: str | None) -> None:
    """Run one script by itself and print its table.

    Args:
        rows: Its function; takes whether to be quick.
        description: Its docstring.
    """
    import torch

    args = arguments(description).parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(markdown(rows(args.quick)))
