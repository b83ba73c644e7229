"""The fastest of several backends, found by timing them once in this process."""

import statistics
import warnings
from collections.abc import Callable, Hashable, Mapping

import torch

_REPEATS = 5
#: What was chosen so far, by key; cleared, the next calls measure anew.
chosen: dict[Hashable, str | None] = {}


def cuda_milliseconds(run: Callable[[], object]) -> float:
    """Median time of ``run`` on the current stream, after a call that compiles and warms up."""
    run()
    times = []
    for _ in range(_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def fastest(key: Hashable, candidates: Mapping[str, Callable[[], object]]) -> str | None:
    """Name of the fastest candidate, measured on the first call with ``key``.

    A candidate that raises is dropped with a warning, so a backend that does not work on this
    machine costs speed instead of the run. Running out of memory is not such a failure.

    Args:
        key: What the speed depends on.
        candidates: Work on a GPU to time under each name.

    Returns:
        The name, or ``None`` where every candidate raises.
    """
    if key not in chosen:
        times = {}
        for name, run in candidates.items():
            try:
                times[name] = cuda_milliseconds(run)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # compilers and drivers raise all kinds
                warnings.warn(
                    f'deformable attention: the {name} backend fails here and is left out '
                    f'({type(error).__name__}: {error})',
                    stacklevel=2,
                )
        chosen[key] = min(times, key=lambda name: times[name], default=None)
    return chosen[key]
