"""How many threads suit a machine that others use too.

Standard library only: this runs before PyTorch is loaded. PyTorch divides its work among threads
that wait for one another. With a thread for every processor and another busy process on one of
them, all wait for the slowest, and they wait by spinning: a training step takes 4 times as long as
alone. With a thread less it takes 1.3 times as long (docs/benchmarks.md).
"""

import math
import os
from pathlib import Path

_STAT, _CGROUP = Path('/proc/stat'), Path('/sys/fs/cgroup')
#: Turns of libgomp's loop before a waiting thread sleeps; its own 300,000 are about a millisecond.
_SPINS = '1000'
_Clock = tuple[float, float]
_start: _Clock | None = None


def watch() -> None:
    """Begin to measure what other processes do, and let threads of PyTorch not spin for long.

    Called as early as possible: what follows, importing PyTorch and mmdet, takes seconds of which
    one processor is enough. Variables of the environment that are set go first.
    """
    global _start
    os.environ.setdefault('GOMP_SPINCOUNT', _SPINS)
    _start = _clock()


def threads() -> int:
    """Threads for PyTorch: the processors that this process may use less those that are busy.

    Returns:
        At least 1; without `watch`, or where the system does not tell, all that may be used.
    """
    count = available()
    now = _clock()
    if _start is None or now is None or now[0] - _start[0] < 0.5:
        return count
    seconds, others = now[0] - _start[0], now[1] - _start[1]
    free = len(os.sched_getaffinity(0)) - round(others / seconds)
    return max(1, min(count, free))


def available() -> int:
    """Processors that this process may use, by its affinity and the quota of its container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    quota = _quota()
    return max(1, min(count or 1, math.ceil(quota))) if quota else count or 1


def _quota() -> float | None:
    """Processors' worth of time that a container gets (cgroup version 2, then 1)."""
    try:
        if (file := _CGROUP / 'cpu.max').is_file():
            quota, period = file.read_text().split()
        else:
            names = 'cpu.cfs_quota_us', 'cpu.cfs_period_us'
            quota, period = ((_CGROUP / 'cpu' / name).read_text().strip() for name in names)
        return float(quota) / float(period) if quota not in ('max', '-1') else None
    except (OSError, ValueError):
        return None


def _clock() -> _Clock | None:
    """Seconds since the start of the system, and processor time of others on our processors."""
    try:
        ours = os.sched_getaffinity(0)
        tick = os.sysconf('SC_CLK_TCK')
        lines = [line.split() for line in _STAT.read_text().splitlines()]
        rows = [line for line in lines if line[0][:3] == 'cpu' and line[0][3:].isdigit()]
        fields = [list(map(int, row[1:9])) for row in rows if int(row[0][3:]) in ours]
        idle = sum(row[3] + row[4] for row in fields)  # idle, and waiting for a disk
        total = sum(map(sum, fields))
        own = sum(os.times()[:4])
        return total / tick / len(fields), (total - idle) / tick - own
    except (OSError, ValueError, AttributeError, ZeroDivisionError, IndexError):
        return None  # not Linux
