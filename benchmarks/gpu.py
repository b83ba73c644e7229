"""All that only a GPU can show, in one run of at most 9 minutes: `make gpu`.

`python -m benchmarks.gpu` runs, prints a table and keeps it with the figures as JSON; `--write`
also puts it into docs/gpu.md. A part that fails or takes too long is named there; the others go on.
"""

import argparse
import platform
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks._machine import PACKAGES, version_of
from benchmarks._timing import Row

#: Function of each part, and most seconds that it gets, importing included.
PARTS = {
    'tests': ('benchmarks.gpu_parts:tests', 150),
    'kernels': ('benchmarks.gpu_table:kernels', 100),
    'training': ('benchmarks.gpu_table:training', 90),
    'inference': ('benchmarks.gpu_parts:inference', 75),
    'curves': ('benchmarks.gpu_parts:curves', 45),
    'toy': ('benchmarks.gpu_parts:toy', 75),
}
RESULTS = table.ROOT / 'work_dirs' / 'gpu.json'
PAGE = table.ROOT / 'docs' / 'gpu.md'


def missing() -> str | None:
    """What this machine lacks, or None."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f'torch {torch.__version__} is built without CUDA; install one for your GPU'
    if not Path('/proc/driver/nvidia').exists() and platform.system() == 'Linux':
        return 'there is no NVIDIA driver on this machine'
    return 'torch sees no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES'


def facts(device: str) -> dict[str, str]:
    """What figures depend on, by name."""
    import torch

    found = {'device': platform.processor() or platform.machine()}
    if device != 'cpu':
        properties = torch.cuda.get_device_properties(device)
        found = {
            'device': f'{properties.name}, {properties.total_memory / 2**30:.0f} GiB',
            'compute capability': f'{properties.major}.{properties.minor}',
            'CUDA of torch': str(torch.version.cuda),
        }
    names = (*PACKAGES, 'triton', 'deformops')
    software = ', '.join(f'{name} {v}' for name in names if (v := version_of(name)))
    return {**found, 'software': software}


def run(parts: list[str], device: str, quick: bool) -> dict[str, Any]:
    """Run parts one after the other; says on stderr where it is.

    Returns:
        ``machine``, ``quick``, ``seconds`` of each part and its ``rows``.
    """
    machine = facts(device)
    whole = sum(PARTS[name][1] for name in parts) / 60
    print(f'at most {whole:.0f} minutes', file=sys.stderr)
    rows: dict[str, list[Row]] = {}
    seconds: dict[str, float] = {}
    for part in parts:
        script, limit = PARTS[part]
        start = time.monotonic()
        print(f'{part} ...', end=' ', file=sys.stderr, flush=True)
        rows[part] = table.measure(script, limit, quick=quick, device=device)
        seconds[part] = round(time.monotonic() - start, 1)
        print(f'{seconds[part]:.0f} s', file=sys.stderr)
    return dict(machine=machine, quick=quick, seconds=seconds, rows=rows)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = ', '.join(PARTS)
    text = f'of {names}; default: all'
    parser.add_argument('parts', nargs='*', choices=[[], *PARTS], metavar='PART', help=text)
    parser.add_argument('--quick', action='store_true', help='small sizes: does it run at all?')
    text = 'cpu, with --quick, tries the parts out'
    parser.add_argument('--device', default='cuda', choices=['cuda', 'cpu'], help=text)
    parser.add_argument('--write', action='store_true', help='replace the table of docs/gpu.md')
    args = parser.parse_args()
    if args.device != 'cpu' and (reason := missing()):
        sys.exit(f'error: no GPU to measure: {reason}')
    if args.write and (args.parts or args.quick):
        sys.exit('error: --write takes all parts in full size; leave out PART and --quick')
    results = run(args.parts or list(PARTS), args.device, args.quick)
    table.save(results, RESULTS)
    print(table.report(results))
    print(f'\nAs JSON: {RESULTS}', file=sys.stderr)
    if args.write:
        table.publish(results, PAGE, 'gpu', PARTS)


if __name__ == '__main__':
    main()
