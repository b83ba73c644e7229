"""The fastest of several backends for a kind of input: timed once on a GPU, and kept on disk.

The folder is ``MPVIT_CACHE``, or else ``mpvit`` in the user's cache (``~/.cache``);
``MPVIT_CACHE=off`` keeps nothing. There is one file for each card and set of versions, so that
another card or an update is measured anew. Deleting a file has the same effect.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import statistics
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from mpvit.errors import UserError
from mpvit.files.writing import NotWritten, write

VARIABLE = 'MPVIT_CACHE'
#: In which dtype the Triton kernels add gradients of values, 'float32' or 'native'.
ATOMICS = 'MPVIT_MSDA_ATOMICS'
_REPEATS = 20
#: What was chosen so far in this process; cleared, the next calls look on disk or measure anew.
chosen: dict[tuple, str | None] = {}


class Kind(NamedTuple):
    """What the speed of a backend depends on.

    Attributes:
        direction: What is called, such as 'forward'.
        values: Dtype of the values, such as 'float32'.
        locations: Dtype of the sampling locations or offsets.
        channels: Of a head.
        heads: Of attention.
        levels: Of the feature maps.
        points: Samples of a head on a level.
        rows: Binary digits of the number of images x queries x heads.
        sums: Dtype in which Triton adds up gradients, as MPVIT_MSDA_ATOMICS has it.
    """

    direction: str
    values: str
    locations: str
    channels: int
    heads: int
    levels: int
    points: int
    rows: int
    sums: str


def cuda_milliseconds(run: Callable[[], object]) -> float:
    """Median time of ``run`` on the GPU.

    It is recorded as a CUDA graph, so that the time of Python between its kernels does not count:
    of small inputs that is most of the time. What cannot be recorded is timed as it comes.
    """
    run()  # compiles and warms up
    work = _recorded(run)
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(_REPEATS)
    ]
    for start, end in events:
        start.record()
        work()
        end.record()
    events[-1][1].synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events)


def _recorded(run: Callable[[], object]) -> Callable[[], object]:
    """``run`` as a CUDA graph, or itself where it cannot be recorded."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.current_stream()
    try:
        # other threads may call CUDA meanwhile: those that pin memory, or watch NCCL
        with torch.cuda.graph(graph, capture_error_mode='thread_local'):
            run()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        torch.cuda.set_stream(stream)  # a recording that fails at its end leaves its own in force
        return run
    graph.replay()
    return graph.replay


def fastest(
    kind: Kind, candidates: Mapping[str, Callable[[], object]], device: torch.device
) -> str | None:
    """Name of the fastest candidate, from this process, from disk, or measured now.

    A candidate that raises is dropped with a warning, so a backend that does not work on this
    machine costs speed instead of the run; such a choice is not kept on disk. Nor is that of a
    candidate which ran out of memory while another one did not: timing takes more memory than the
    call itself. While a CUDA graph is recorded nothing can be measured, and the
    first candidate is taken.

    Args:
        kind: What the speed depends on.
        candidates: Work on a GPU to time under each name.
        device: The GPU.

    Returns:
        The name, or ``None`` where every candidate raises.

    Raises:
        torch.OutOfMemoryError: No candidate could be timed for want of memory.
        UserError: A setting of a backend is wrong.
    """
    key = (device, kind, *candidates)
    if key not in chosen:
        file = record(device)
        known = _read(file).get(_name(kind, candidates), {}).get('fastest')
        if isinstance(known, str) and known in candidates:
            chosen[key] = known
        elif torch.cuda.is_current_stream_capturing():
            return next(iter(candidates), None)
        else:
            times = _times(candidates)
            chosen[key] = min(times, key=lambda name: times[name], default=None)
            if times and len(times) == len(candidates):
                _keep(file, device, _name(kind, candidates), chosen[key], times)
    return chosen[key]


def _times(candidates: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    times = {}
    full = None
    for name, run in candidates.items():
        try:
            times[name] = cuda_milliseconds(run)
        except UserError:
            raise
        except torch.OutOfMemoryError as error:
            full = error
        except Exception as error:  # compilers and drivers raise all kinds
            warnings.warn(
                f'deformable attention: the {name} backend fails here and is left out '
                f'({type(error).__name__}: {error})',
                stacklevel=4,
            )
    if full and not times:
        raise full
    return times


@functools.lru_cache
def record(device: torch.device) -> Path | None:
    """The file that keeps what was measured on a GPU; None where nothing is kept."""
    folder = os.environ.get(VARIABLE)
    if folder == 'off':
        return None
    if not folder:
        folder = os.path.join(os.environ.get('XDG_CACHE_HOME') or '~/.cache', 'mpvit')
    name = hashlib.sha256(json.dumps(_versions(device)).encode()).hexdigest()[:16]
    try:
        root = Path(folder).expanduser()
    except RuntimeError:  # a user without a home, as in some containers
        return None
    return root / 'attention' / f'{name}.json'


def _versions(device: torch.device) -> dict[str, str | None]:
    """What a measurement holds for."""
    sources = sorted(Path(__file__).parent.glob('*.py'))
    kernels = b''.join(source.read_bytes() for source in sources)
    versions = {'gpu': torch.cuda.get_device_name(device), 'cuda': torch.version.cuda}
    versions['torch'] = torch.__version__
    versions['kernels'] = hashlib.sha256(kernels).hexdigest()[:16]
    for package in ('triton', 'onedl-mmcv', 'mmcv'):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _name(kind: Kind, candidates: Mapping[str, object]) -> str:
    parts = ' '.join(f'{name}={value}' for name, value in kind._asdict().items())
    return f'{parts} of {",".join(candidates)}'


def _read(file: Path | None) -> dict[str, dict]:
    """Choices of a file; nothing where it is not there or not ours."""
    if file is None:
        return {}
    try:
        choices = json.loads(file.read_bytes())['choices']
        return {name: choice for name, choice in choices.items() if isinstance(choice, dict)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _keep(
    file: Path | None, device: torch.device, name: str, choice: str | None, times: dict[str, float]
) -> None:
    """Add a choice to a file; of processes that do so together, the last one's stay."""
    if file is None:
        return
    choices = _read(file) | {name: {'fastest': choice, 'milliseconds': times}}
    try:
        found = {'versions': _versions(device), 'choices': choices}
        write(file, json.dumps(found, indent=1) + '\n')
    except NotWritten:  # a full disk or a folder of others: measured again next time
        pass
