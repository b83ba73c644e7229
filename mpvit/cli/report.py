"""Write everything about a run into one HTML file (docs/plots.md)."""

import argparse
from pathlib import Path
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.files.paths import expanded, new_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'work_dir', type=expanded, metavar='WORK_DIR', help='work folder of the run'
    )
    parser.add_argument(
        '--out',
        dest='target',
        type=new_file,
        metavar='FILE',
        help='file to write (default: WORK_DIR/report.html)',
    )
    types.add_threshold(parser, 'score from which detections are counted and drawn')
    parser.add_argument(
        '--count',
        type=types.count,
        default=8,
        metavar='N',
        help='images and mistakes of each kind that are shown (default: 8)',
    )


def run(work_dir: str, target: str | None, **options: Any) -> None:
    """Write the report and say what is not in it."""
    from mpvit.visualization.report import write_report

    place = Path(target) if target else Path(work_dir) / 'report.html'
    replaced = ' (it replaces the last one)' if place.exists() else ''
    path, missing = write_report(work_dir, target, **options)
    print(f'Report: {path}{replaced}, {path.stat().st_size / 1e6:.1f} MB')
    for reason in missing:
        print(f'not in it: {reason}')
