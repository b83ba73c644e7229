"""Write everything about a run into one HTML file (docs/plots.md)."""

import argparse
from pathlib import Path
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.errors import printable
from mpvit.files.paths import existing_run, new_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'work_dir', type=existing_run, metavar='WORK_DIR', help='work folder of the run'
    )
    text = 'file to write (default: WORK_DIR/report.html)'
    types.option(parser, '--out', new_file, 'FILE', text, dest='target')
    types.add_threshold(parser, 'score from which detections are counted and drawn')
    text = 'images and mistakes of each kind that are shown'
    types.option(parser, '--count', types.count, 'N', text, 8)


def run(work_dir: str, target: str | None, **options: Any) -> None:
    """Write the report and say what is not in it."""
    from mpvit.visualization.report import write_report

    place = Path(target) if target else Path(work_dir) / 'report.html'
    replaced = ' (it replaces the last one)' if place.exists() else ''
    path, missing = write_report(work_dir, target, **options)
    print(f'Report: {path}{replaced}, {path.stat().st_size / 1e6:.1f} MB')
    for reason in missing:
        print(printable(f'not in it: {reason}'))
