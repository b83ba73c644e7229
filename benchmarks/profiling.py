"""Where the time of a detection or of a training step of MPViT-S goes, by operator.

`python -m benchmarks.profiling training bf16` prints a table.
"""

import argparse
from itertools import islice

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import detector, training
from benchmarks._synthetic import FULL
from benchmarks._timing import Action

SMALL = (96, 128)


def action_of(what: str, dtype: str, quick: bool = False) -> Action:
    """What `benchmarks.detector` or `benchmarks.training` time, as the project runs it.

    Args:
        what: ``'detector'`` or ``'training'``.
        dtype: ``'fp32'`` or ``'bf16'``; of training, by autocast.
        quick: Small sizes.
    """
    if what == 'detector':
        return detector.our_action(SMALL if quick else FULL, quick, dtype)
    return training.our_step(SMALL if quick else training.SIZE, quick, amp=dtype)


def table(action: Action, rows: int = 15) -> str:
    """The operators that take longest without those that they call, as markdown.

    The first call, which loads kernels, is not profiled.
    """
    action()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        action()
    events = sorted(profiler.key_averages(), key=lambda e: e.self_cpu_time_total, reverse=True)
    whole = sum(event.self_cpu_time_total for event in events)
    lines = [f'| operator | of {whole / 1e6:.2f} s | calls |', '|---|---|---|']
    for event in islice(events, rows):
        lines.append(f'| `{event.key}` | {event.self_cpu_time_total / whole:.1%} | {event.count} |')
    return '\n'.join(lines)


def main() -> None:
    """Parse arguments, profile, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('what', choices=['detector', 'training'])
    parser.add_argument('dtype', choices=['fp32', 'bf16'])
    parser.add_argument('--rows', type=int, default=15, help='operators; default: 15')
    args = parser.parse_args()
    print(f'{torch.get_num_threads()} threads, torch {torch.__version__}\n')
    print(table(action_of(args.what, args.dtype), args.rows))


if __name__ == '__main__':
    main()
