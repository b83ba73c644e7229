"""One HTML file about a run: python tools/report.py WORK_DIR."""

import argparse
from pathlib import Path
from typing import Any

from _cli import light, light_plots, parse, run


def main() -> None:
    """Parse arguments and write the report."""
    parser = argparse.ArgumentParser(
        description='Write everything about a run into one HTML file (docs/plots.md).'
    )
    parser.add_argument('work_dir', metavar='WORK_DIR', help='work folder of the run')
    parser.add_argument(
        '--out', dest='target', metavar='FILE', help='file to write (default: WORK_DIR/report.html)'
    )
    parser.add_argument(
        '--threshold',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='score from which detections are counted and drawn (default: 0.3)',
    )
    parser.add_argument(
        '--count',
        type=int,
        default=8,
        metavar='N',
        help='images and mistakes of each kind that are shown (default: 8)',
    )
    arguments = parse(parser)
    run(lambda: _report(**arguments))


def _report(work_dir: str, target: str | None, **options: Any) -> None:
    light_plots()
    light('version')
    place = Path(target) if target else Path(work_dir) / 'report.html'
    replaced = ' (it replaces the last one)' if place.exists() else ''
    path, missing = light('report').write_report(work_dir, target, **options)
    print(f'Report: {path}{replaced}, {path.stat().st_size / 1e6:.1f} MB')
    for reason in missing:
        print(f'not in it: {reason}')


if __name__ == '__main__':
    main()
