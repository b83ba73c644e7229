"""What a measurement ran on, and how much the machine did besides."""

import os
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# That matter for products of matrices, as the kernel of Linux calls them.
SETS = (
    *('avx2', 'avx512f', 'avx_vnni', 'avx512_vnni', 'avx512_bf16', 'avx512_fp16'),
    *('amx_tile', 'amx_int8', 'amx_bf16', 'asimddp', 'i8mm', 'bf16', 'sve'),
)
PACKAGES = (
    *('torch', 'onedl-mmcv', 'mmcv', 'mmcv-lite', 'numba', 'openvino', 'onnxruntime', 'nncf'),
    *('transformers', 'torch-ms-deform-attn'),
)


SIDE = 2048  # of the matrices whose product says how fast the machine is
MAPS = (256, 100, 166)  # channels, height and width of what a 3 x 3 convolution takes
OPERATIONS = {'torch.mm': 2 * SIDE**3, 'convolution': 2 * 9 * MAPS[0] ** 2 * MAPS[1] * MAPS[2]}
SIZES = {
    'torch.mm': f'{SIDE}x{SIDE}',
    'convolution': f'3x3, {MAPS[0]} channels, {MAPS[1]}x{MAPS[2]}',
}
REPEATED = 4


def instruction_sets() -> list[str]:
    """Those of `SETS` that the CPU has."""
    try:
        found = re.search(r'^(flags|Features)\s*:(.*)$', Path('/proc/cpuinfo').read_text(), re.M)
    except OSError:  # not Linux
        return []
    flags = found[2].split() if found else []
    return [name for name in SETS if name in flags]


def has_bf16() -> bool:
    """Whether this CPU multiplies in bf16."""
    return bool({'avx512_bf16', 'amx_bf16', 'bf16'} & set(instruction_sets()))


def has_vnni() -> bool:
    """Whether this CPU multiplies 8-bit integers, four at a time."""
    wanted = {'avx_vnni', 'avx512_vnni', 'amx_int8', 'asimddp', 'i8mm'}
    return bool(wanted & set(instruction_sets()))


def facts(threads: int) -> dict[str, str]:
    """What figures depend on, by name."""
    import torch

    from mpvit.engine.run_folder import processor

    return {
        'CPU': processor(),
        'instruction sets': ', '.join(instruction_sets()) or 'unknown',
        'used by torch': torch.backends.cpu.get_cpu_capability(),
        'cores': str(os.cpu_count()),
        'threads': str(threads),
        'software': ', '.join(f'{n} {v}' for n in PACKAGES if (v := version_of(n))),
    }


def version_of(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def product_action(kind: str, dtype: str) -> Callable[[], None]:
    """`REPEATED` products of a key of `OPERATIONS`, as fast as torch does them."""
    import torch
    from torch import nn

    as_type = dict(fp32=torch.float32, bf16=torch.bfloat16)[dtype]
    layer = nn.Conv2d(MAPS[0], MAPS[0], 3, padding=1, bias=False)
    layer = layer.to(as_type, memory_format=torch.channels_last)
    maps = torch.randn(1, *MAPS).to(as_type, memory_format=torch.channels_last)
    a, b = (torch.randn(SIDE, SIDE).to(as_type) for _ in range(2))

    @torch.no_grad()
    def run() -> None:
        for _ in range(REPEATED):
            if kind == 'torch.mm':
                a @ b
            else:
                layer(maps)

    return run


@dataclass(frozen=True)
class Noise:
    """How much disturbed a measurement.

    Attributes:
        others: Share of the processors' time that other processes took.
        stolen: Share that the host of a virtual machine took.
        drift: By how much a fixed product of matrices between the scripts was slower at its slowest
            than at its fastest, as a share.
        load: Load average when it began; 0 where the system does not tell.
    """

    others: float
    stolen: float
    drift: float
    load: float

    def refusal(self) -> str | None:
        """Why the figures shall not be published, in one line; None if they may be."""
        reasons = [
            f'{WORDS[name]} {getattr(self, name):.0%} (at most {limit:.0%})'
            for name, limit in LIMITS.items()
            if getattr(self, name) > limit
        ]
        return 'the machine was too noisy: ' + ', '.join(reasons) if reasons else None

    def __str__(self) -> str:
        """In one line."""
        shares = ', '.join(f'{WORDS[name]} {getattr(self, name):.1%}' for name in LIMITS)
        return f'{shares}; load average at the start {self.load:.1f}'


#: Above one of these no table is written. Drift hurts little, since each ratio is of things timed
#: in turn: a virtual machine with neighbours varies by 65 % even where it does nothing else.
LIMITS = dict(others=0.05, stolen=0.02, drift=1.0)
WORDS = dict(
    others='other processes took',
    stolen='the host took',
    drift='a fixed product of matrices varied by',
)


class Watch:
    """Measures the noise from when it is made on."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else 0.0
        self._start = _clock()
        self._loops: list[float] = []

    def sample(self, runs: int = 100) -> None:
        """Time the fixed product, between two scripts."""
        import torch

        a = torch.ones(1024, 1024)
        seconds = []
        for _ in range(5):  # until its threads are there
            a @ a
        for _ in range(runs):
            start = time.perf_counter()
            a @ a
            seconds.append(time.perf_counter() - start)
        self._loops.append(statistics.median(seconds))

    def noise(self) -> Noise:
        """Since the start; processes that were started here have to have ended."""
        total, others, stolen = (b - a for a, b in zip(self._start, _clock(), strict=True))
        drift = max(self._loops) / min(self._loops) - 1 if self._loops else 0.0
        total = max(total, 1e-9)  # where the system does not tell
        return Noise(max(0.0, others / total), stolen / total, drift, self._load)


def _clock() -> tuple[float, float, float]:
    """Time of all processors in seconds: whole, of other processes, and taken by the host."""
    try:
        ours = os.sched_getaffinity(0)
        lines = [line.split() for line in Path('/proc/stat').read_text().splitlines()]
    except (OSError, AttributeError):  # not Linux
        return 0.0, 0.0, 0.0
    rows = [line for line in lines if re.fullmatch(r'cpu\d+', line[0]) and int(line[0][3:]) in ours]
    # user, nice, system, idle, waiting for a disk, two kinds of interrupts, stolen
    fields = [sum(int(row[i]) for row in rows) / os.sysconf('SC_CLK_TCK') for i in range(1, 9)]
    busy = sum(fields[:3]) + sum(fields[5:7])
    return sum(fields), busy - sum(os.times()[:4]), fields[7]
