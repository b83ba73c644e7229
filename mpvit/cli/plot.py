"""Draw pictures of a run (docs/plots.md)."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.files.paths import existing_file, existing_folder, existing_run, new_file
from mpvit.files.writing import check_writable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='KIND')
    text = 'losses, learning rate and AP of one or several trainings'
    curves = kinds.add_parser('curves', help=text, description=f'Draw {text}.')
    curves.add_argument(
        'work_dirs', nargs='+', type=existing_run, metavar='WORK_DIR', help='work folder of a run'
    )
    text = 'picture to write: .png, .svg or .pdf (default, for one run: WORK_DIR/curves.png)'
    types.option(curves, '--out', new_file, 'FILE', text, dest='target')
    text = 'what a detector gets right and wrong, from detections in a work folder or in files'
    errors = kinds.add_parser('errors', help=text, description=f'Draw {text}.')
    errors.add_argument(
        'work_dir', nargs='?', type=existing_run, metavar='WORK_DIR', help='work folder of a run'
    )
    option = partial(types.option, errors)
    option('--ann', types.annotations, 'FILE', 'annotation file', dest='val_ann')
    hint = '; mpvit test writes them as detections.bbox.json'
    detections = partial(existing_file, what='detections', hint=hint)
    option('--detections', detections, 'FILE', 'detections, .bbox.json')
    option('--images', existing_folder, 'DIR', 'folder of the images', dest='val_images')
    option('--out', new_file, 'DIR', 'new folder (default: WORK_DIR/errors)', dest='target')
    types.add_threshold(errors, 'score from which detections are counted and drawn')
    option('--count', types.count, 'N', 'images on a sheet', 12)
    types.choice(errors, '--format', ['png', 'svg', 'pdf'], 'of charts')


def check(parser: argparse.ArgumentParser, given: dict[str, Any]) -> None:
    """Refuse arguments that do not go together."""
    if given['kind'] == 'curves':
        if len(given['work_dirs']) > 1 and not given['target']:
            parser.error('name the picture of several runs with --out FILE')
        return
    named = bool(given['val_ann']), bool(given['detections'])
    if any(named) and not all(named):
        parser.error('--ann and --detections go together')
    if not any(named) and not given['work_dir']:
        parser.error('name WORK_DIR, or --ann and --detections')
    if any(named) and not (given['work_dir'] or given['target']):
        parser.error('name the folder for the pictures with --out DIR')
    if given['val_images'] and not any(named):
        parser.error('--images goes with --ann and --detections')


def run(kind: str, **arguments: Any) -> None:
    """Draw."""
    draw: Any = {'curves': _curves, 'errors': _errors}[kind]
    draw(**arguments)


def _curves(work_dirs: list[str], target: str | None) -> None:
    from mpvit.visualization.curves import plot_curves

    print(plot_curves(work_dirs, Path(target) if target else Path(work_dirs[0]) / 'curves.png'))


def _errors(
    work_dir: str | None,
    val_ann: str | None,
    detections: str | None,
    val_images: str | None,
    target: str | None,
    threshold: float,
    count: int,
    format: str,
) -> None:
    from mpvit.engine.run_folder import find_run
    from mpvit.evaluation.analysis import Analysis
    from mpvit.evaluation.result_files import read_results
    from mpvit.visualization.error_pictures import draw_errors

    folder = Path(target) if target else Path(work_dir or '') / 'errors'
    check_writable(folder, folder=True)
    if val_ann is not None and detections is not None:
        results = read_results(val_ann, detections, val_images or '')
    else:
        results = find_run(work_dir or '').results()
    study = Analysis(results, threshold)
    for path in draw_errors(study, folder, suffix=f'.{format}', count=count):
        print(path)
    missing = sum(not file.is_file() for file in results.files)
    if missing:
        print(f'{missing} of {len(results.files)} images are not there; they are drawn as blanks')
