"""Measuring several programs in turn, peak memory, and the rows that scripts hand to the table."""

import gc
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

Action = Callable[[], Any]
#: Environment of what we are compared with: without the huge pages that `mpvit.register` asks for.
STOCK = {'THP_MEM_ALLOC_ENABLE': '0'}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What is measured.
        against: What it is compared with.
        ratio: How many times better ``what`` is; None where it could not be measured.
        spread: Lowest and highest ratio of single rounds; None for a single measurement.
        target: Ratio to be reached; None for a figure that only informs.
        note: What else is to be known, such as absolute figures.
        unit: ``'x'``; ``'%'`` for a share, whose ratio and target then lie in [0, 1]; or the unit
            of a figure that is compared with nothing.
    """

    what: str
    against: str
    ratio: float | None
    spread: tuple[float, float] | None = None
    target: float | None = None
    note: str = ''
    unit: str = 'x'


def row_of(
    values: list[float], what: str, against: str, target: float | None, note: str, unit: str = 'x'
) -> Row:
    """A row with the median of values, and their spread."""
    spread = (min(values), max(values))
    return Row(what, against, statistics.median(values), spread, target, note, unit)


@dataclass(frozen=True)
class Contender:
    """A program to measure, in a process of its own.

    Attributes:
        build: Module-level function that makes the action from ``args``.
        args: Its arguments; they travel to the other process.
        environment: Variables of the other process.
    """

    build: Callable[..., Action]
    args: tuple[Any, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Turns:
    """What several contenders took in turn.

    Attributes:
        seconds: Of each contender, one entry a round.
        outputs: What the first call of each gave back, as arrays, where it gave tensors or arrays.
        failed: What went wrong, of contenders that did not run.
    """

    seconds: dict[str, list[float]]
    outputs: dict[str, Any]
    failed: dict[str, str]

    def median(self, name: str) -> float:
        """Median seconds of a contender."""
        return statistics.median(self.seconds[name])

    def row(
        self,
        what: str,
        against: str,
        names: tuple[str, str],
        target: float | None = None,
        note: str = '',
    ) -> Row:
        """How many times faster the first of two contenders is, from the ratios of the rounds."""
        for name in names:
            if name in self.failed:
                return Row(what, against, None, None, target, f'failed: {self.failed[name]}')
        ours, theirs = names
        pairs = zip(self.seconds[ours], self.seconds[theirs], strict=True)
        seconds = f'{self.median(ours):.3g} s against {self.median(theirs):.3g} s'
        note = f'{seconds}; {note}' if note else seconds
        return row_of([b / a for a, b in pairs], what, against, target, note)


def in_turn(contenders: Mapping[str, Contender], runs: int = 5, limit: float = 60) -> Turns:
    """Time contenders in turn: A B C, C B A, and so on.

    Each gets a process of its own; these are made ready at the same time and then work one after
    the other. The first call of each is not timed. One that fails does not keep the others from
    running.

    Args:
        contenders: By name.
        runs: Rounds.
        limit: Seconds after which no further round begins, once there are two.
    """
    outputs: dict[str, Any] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        workers = {n: stack.enter_context(_worker(c)) for n, c in contenders.items()}
        for name, (pool, built) in workers.items():
            try:
                built.result()
                outputs[name] = pool.submit(_output).result()
            except Exception as error:
                failed[name] = repr(error)
        seconds: dict[str, list[float]] = {name: [] for name in outputs}
        start = time.monotonic()
        for number in range(runs):
            if number > 1 and time.monotonic() - start > limit:
                break
            for name in list(seconds)[:: 1 if number % 2 == 0 else -1]:
                seconds[name].append(workers[name][0].submit(_seconds).result())
    return Turns(seconds, outputs, failed)


class Memory(NamedTuple):
    """The peak of a process, in MiB.

    Attributes:
        added: By the action, beside what its process held before; at least 1.
        resident: Of the whole process.
    """

    added: float
    resident: float


def peak_memory(contender: Contender) -> Memory:
    """The peak while an action runs once in a process of its own; Linux only."""
    with _worker(contender) as (pool, built):
        built.result()
        memory: Memory = pool.submit(_peak).result()
        return memory


@contextmanager
def _worker(contender: Contender) -> Iterator[tuple[ProcessPoolExecutor, Future]]:
    """A fresh process that makes the action of a contender."""
    before = {name: os.environ.get(name) for name in contender.environment}
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        os.environ.update(contender.environment)
        try:  # the process starts here, and not later
            built = pool.submit(_build, contender.build, contender.args)
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
        yield pool, built


_kept: list[Action] = []  # in the other process


def _build(build: Callable[..., Action], args: tuple[Any, ...]) -> None:
    _kept.append(build(*args))


def _output() -> list[Any]:
    output = _kept[-1]()
    tensors = output if isinstance(output, list | tuple) else []
    return [t.detach().float().numpy() if hasattr(t, 'detach') else t for t in tensors]


def _seconds() -> float:
    gc.collect()
    start = time.perf_counter()
    _kept[-1]()
    return time.perf_counter() - start


def _peak() -> Memory:
    gc.collect()
    Path('/proc/self/clear_refs').write_text('5')  # the high-water mark starts anew from here
    before = _status('VmRSS')
    _kept[-1]()
    peak = _status('VmHWM')
    return Memory(max((peak - before) / 1024, 1.0), peak / 1024)  # less may hide in freed memory


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
    return f'{value:.3g}x' if unit == 'x' else f'{value:.3g} {unit}'
