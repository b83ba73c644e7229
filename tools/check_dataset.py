"""Look for problems in a dataset: python tools/check_dataset.py DIR."""

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

from _cli import light, parse, run


def main() -> None:
    """Parse arguments, check, and exit with 1 if there are errors."""
    parser = argparse.ArgumentParser(
        description='Look for problems in a dataset in COCO format (docs/check_dataset.md).',
        epilog='Exit status: 0 without errors, 1 with errors, 2 for wrong arguments.',
    )
    parser.add_argument('data', nargs='?', metavar='DIR', help='folder of the dataset')
    for role, name in (('train', 'training'), ('val', 'validation')):
        parser.add_argument(f'--{role}-ann', metavar='FILE', help=f'{name} annotation file')
        parser.add_argument(f'--{role}-images', metavar='DIR', help=f'folder of {name} images')
    parser.add_argument('--config', help='also compare with the classes and scales of a config')
    parser.add_argument('--quick', action='store_true', help='read only a sample of the images')
    parser.add_argument(
        '--workers', type=int, metavar='N', help='threads (default: one for each CPU core)'
    )
    parser.add_argument('--json', metavar='FILE', help='write all that was found as JSON')
    parser.add_argument(
        '--picture', metavar='FILE.png', help='draw histograms and the worst samples'
    )
    parser.add_argument('--fix', metavar='FILE', help='write a repaired copy of the training file')
    parser.add_argument('--fix-val', metavar='FILE', help='the same for the validation file')
    arguments = parse(parser, lambda given: _check_combination(parser, given))
    run(lambda: sys.exit(_check(**arguments)))


def _check_combination(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    names = ['train_ann', 'train_images', 'val_ann', 'val_images']
    named = [name for name in names if arguments[name]]
    if bool(arguments['data']) == bool(named):
        parser.error('name either DIR or the files (--train-ann and --train-images)')
    if named and named not in (names, names[:2]):
        parser.error('--train-ann and --train-images are needed, --val-ann and --val-images or not')
    if arguments['quick'] and (arguments['fix'] or arguments['fix_val']):
        parser.error('--fix needs all images to be read; leave out --quick')
    written = [name for name in ('json', 'picture', 'fix', 'fix_val') if arguments[name]]
    for first, second in combinations(written, 2):
        if Path(arguments[first]).resolve() == Path(arguments[second]).resolve():
            flags = ' and '.join(f'--{name.replace("_", "-")}' for name in (first, second))
            parser.error(f'{flags} name the same file')
    if arguments['workers'] is not None and arguments['workers'] < 1:
        parser.error('--workers must be 1 or more')


def _check(
    data: str | None,
    config: str | None,
    quick: bool,
    workers: int | None,
    **files: str | None,
) -> int:
    check = light('datasets.check')
    if data is not None:
        light('datasets.search')  # which the layout imports
        layout = light('datasets.layout')
        splits = [check.Split(*part) for part in layout.files_to_check(data)]
        others = layout.test_files(data)
    else:
        others = []
        splits = [
            check.Split(files[f'{role}_ann'], files[f'{role}_images'])
            for role in ('train', 'val')
            if files[f'{role}_ann']
        ]
    settings = _settings(check, config) if config else {}
    found = check.inspect_dataset(
        *splits, quick=quick, workers=workers, other_files=others, **settings
    )
    print(check.text_report(found))
    if files['json']:
        Path(files['json']).write_text(json.dumps(check.json_report(found), indent=1) + '\n')
    if files['picture']:
        from mpvit.datasets.check.picture import draw_picture

        draw_picture(found, files['picture'])
    for role, target in (('train', files['fix']), ('val', files['fix_val'])):
        if target:
            changes = check.write_repaired(found.table(role), found.facts, target)
            print('\n'.join(['', f'written to {target}:', *(changes or ['nothing to repair'])]))
    return int(found.failed)


def _settings(check: ModuleType, config: str) -> dict[str, Any]:
    from mpvit.config import leaf_datasets, load_config

    dataset = next(leaf_datasets(load_config(config).train_dataloader.dataset))
    return check.settings_of(dataset)


if __name__ == '__main__':
    main()
