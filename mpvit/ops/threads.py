"""Numba kernels and the threads they run in.

Threads are Python threads: the kernels release the interpreter lock. So their number is torch's
(`torch.set_num_threads`), there is no second thread pool that spins, and a forked worker starts
its own.
"""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from numba import njit

#: Sums may be reordered and fused; NaN and infinity keep their meaning.
FASTMATH = ('contract', 'nsz', 'reassoc')
Task = tuple[int, ...]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function compiled by Numba at its first call, without the interpreter lock.

    The machine code is cached on disk where there is a folder to write to.
    """
    options: dict[str, Any] = dict(nogil=True, fastmath=set(FASTMATH), error_model='numpy')
    try:
        kernel: Callable[..., Any] = njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to write a cache to
        kernel = njit(**options)(function)
    return kernel


def run(
    kernel: Callable[..., None], arrays: tuple[Any, ...], tasks: Sequence[Task], inline: bool
) -> None:
    """Run a kernel once for each task, in as many threads as torch uses.

    Args:
        kernel: Called with ``*arrays, *task``.
        arrays: What all tasks share.
        tasks: What tells them apart.
        inline: Stay in this thread: for so little work that waking others costs more.
    """
    threads = min(torch.get_num_threads(), len(tasks))
    work: Callable[[Task], None] = lambda task: kernel(*arrays, *task)  # noqa: E731
    mapped: Iterable[None] = (
        map(work, tasks) if threads == 1 or inline else _pool(os.getpid(), threads).map(work, tasks)
    )
    for _ in mapped:  # which also raises what a thread raised
        pass


def chunks(count: int, per_thread: int) -> list[Task]:
    """Ranges ``(first, last)`` that cover ``count`` items, for all of torch's threads.

    Each thread has ``per_thread`` of them: more than one, so that all end together.
    """
    parts = per_thread * torch.get_num_threads()
    return [(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


@functools.lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process; a forked child does not inherit those of its parent."""
    return ThreadPoolExecutor(threads, thread_name_prefix='mpvit-kernel')
