"""Look for problems in a dataset in COCO format (docs/check_dataset.md).

Exit status: 0 without errors, 1 with errors, 2 for wrong arguments.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.datasets.data_files import DataFiles
from mpvit.errors import printable
from mpvit.files.paths import new_file, new_picture
from mpvit.files.writing import write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    types.add_data(parser, 'train', 'val', folder='data')
    parser.add_argument(
        '--config', type=types.config, help='also compare with the classes and scales of a config'
    )
    parser.add_argument('--quick', action='store_true', help='read only a sample of the images')
    option = partial(types.option, parser)
    option('--workers', types.number(int, 1, 256), 'N', 'threads (default: one for each CPU core)')
    option('--json', new_file, 'FILE', 'write all that was found as JSON')
    option('--picture', new_picture, 'FILE.png', 'draw histograms and the worst samples')
    option('--fix', new_file, 'FILE', 'write a repaired copy of the training file')
    option('--fix-val', new_file, 'FILE', 'the same for the validation file')


def check(parser: argparse.ArgumentParser, given: dict[str, Any]) -> None:
    """Refuse arguments that do not go together."""
    named = given['data']
    train, val = (named.train_ann, named.train_images), (named.val_ann, named.val_images)
    if bool(named.data) == any(train + val):
        parser.error('name either DIR or the files (--train-ann and --train-images)')
    if any(train + val) and not (all(train) and any(val) == all(val)):
        parser.error('--train-ann and --train-images are needed, --val-ann and --val-images or not')
    if given['quick'] and (given['fix'] or given['fix_val']):
        parser.error('--fix needs all images to be read; leave out --quick')
    written = [name for name in ('json', 'picture', 'fix', 'fix_val') if given[name]]
    for first, second in combinations(written, 2):
        if Path(given[first]).resolve() == Path(given[second]).resolve():
            flags = ' and '.join(f'--{name.replace("_", "-")}' for name in (first, second))
            parser.error(f'{flags} name the same file')


def run(
    data: DataFiles,
    config: str | None,
    quick: bool,
    workers: int | None,
    **files: str | None,
) -> int:
    """Check, say what was found, and write what was asked for; 1 if there are errors."""
    from mpvit.datasets import check
    from mpvit.datasets.layout import files_to_check

    others: Sequence[Path] = ()
    if data.data is not None:
        splits, others = files_to_check(data.data)
    else:
        pairs = [(data.train_ann, data.train_images), (data.val_ann, data.val_images)]
        splits = [check.Split(ann, images) for ann, images in pairs if ann and images]
    settings = _settings(config) if config else {}
    found = check.inspect_dataset(
        *splits, quick=quick, workers=workers, other_files=others, root=data.data, **settings
    )
    print(check.text_report(found))
    if files['json']:
        write(files['json'], json.dumps(check.json_report(found), indent=1) + '\n')
    if files['picture']:
        from mpvit.visualization.dataset_picture import draw_picture

        draw_picture(found, files['picture'])
    for role, target in (('train', files['fix']), ('val', files['fix_val'])):
        if target:
            changes = check.write_repaired(found.table(role), found.facts, target)
            lines = [f'written to {target}:', *(changes or ['nothing to repair'])]
            print('\n'.join(['', *map(printable, lines)]))
    return int(found.failed)


def _settings(config: str) -> dict[str, Any]:
    import mpvit.register  # noqa: F401
    from mpvit.config.reading import leaf_datasets, load_config
    from mpvit.datasets.check import settings_of

    dataset = next(leaf_datasets(load_config(config).train_dataloader.dataset))
    return dict(settings_of(dataset))
