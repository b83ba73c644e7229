"""Pictures of a run: python tools/plot.py curves WORK_DIR, python tools/plot.py errors WORK_DIR."""

import argparse
from pathlib import Path
from typing import Any

from _cli import light, light_plots, parse, run


def main() -> None:
    """Parse arguments and draw."""
    parser = argparse.ArgumentParser(description='Draw pictures of a run (docs/plots.md).')
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='KIND')
    curves = kinds.add_parser(
        'curves',
        help='losses, learning rate and AP of one or several trainings',
        description='Draw losses, learning rate and AP of one or several trainings.',
    )
    curves.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='work folder of a run')
    curves.add_argument(
        '--out',
        dest='target',
        metavar='FILE',
        help='picture to write: .png, .svg or .pdf (default, for one run: WORK_DIR/curves.png)',
    )
    errors = kinds.add_parser(
        'errors',
        help='what a detector gets right and wrong, from its detections',
        description='Draw what a detector gets right and wrong, from the detections that '
        'tools/test.py left in a work folder, or from files.',
    )
    errors.add_argument('work_dir', nargs='?', metavar='WORK_DIR', help='work folder of a run')
    errors.add_argument('--ann', dest='val_ann', metavar='FILE', help='annotation file')
    errors.add_argument('--detections', metavar='FILE', help='detections, .bbox.json')
    errors.add_argument('--images', dest='val_images', metavar='DIR', help='folder of the images')
    errors.add_argument(
        '--out', dest='target', metavar='DIR', help='new folder (default: WORK_DIR/errors)'
    )
    errors.add_argument(
        '--threshold',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='score from which detections are counted and drawn (default: 0.3)',
    )
    errors.add_argument(
        '--count', type=int, default=12, metavar='N', help='images on a sheet (default: 12)'
    )
    errors.add_argument(
        '--format', choices=['png', 'svg', 'pdf'], default='png', help='of charts (default: png)'
    )
    arguments = parse(parser, lambda given: _check(curves, errors, given))
    run(lambda: {'curves': _curves, 'errors': _errors}[arguments.pop('kind')](**arguments))


def _check(
    curves: argparse.ArgumentParser, errors: argparse.ArgumentParser, given: dict[str, Any]
) -> None:
    if given['kind'] == 'curves':
        if len(given['work_dirs']) > 1 and not given['target']:
            curves.error('name the picture of several runs with --out FILE')
        return
    named = bool(given['val_ann']), bool(given['detections'])
    if any(named) and not all(named):
        errors.error('--ann and --detections go together')
    if not any(named) and not given['work_dir']:
        errors.error('name WORK_DIR, or --ann and --detections')
    if any(named) and not (given['work_dir'] or given['target']):
        errors.error('name the folder for the pictures with --out DIR')
    if given['val_images'] and not any(named):
        errors.error('--images goes with --ann and --detections')


def _curves(work_dirs: list[str], target: str | None) -> None:
    light_plots()
    for folder in work_dirs:
        light('analysis').find_run(folder)
    path = Path(target) if target else Path(work_dirs[0]) / 'curves.png'
    print(light('plots').plot_curves(work_dirs, path))


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
    light_plots()
    analysis = light('analysis')
    if val_ann is not None:
        results = analysis.read_results(val_ann, detections, val_images or '')
    else:
        results = analysis.find_run(work_dir).results()
    folder = Path(target) if target else Path(work_dir) / 'errors'
    study = analysis.analyse(results, threshold)
    for path in light('plots').draw_errors(study, folder, suffix=f'.{format}', count=count):
        print(path)
    missing = sum(not file.is_file() for file in results.files)
    if missing:
        print(f'{missing} of {len(results.files)} images are not there; they are drawn as blanks')


if __name__ == '__main__':
    main()
