"""Train a detector."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from mpvit.checkpoints.published import OFFICIAL, PREFIX, official
from mpvit.cli import _arguments as types
from mpvit.config.names import is_model_file
from mpvit.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    types.add_run(parser)
    text = 'finetune: a recipe for a trained detector and your own data (docs/finetune.md)'
    parser.add_argument('--preset', choices=['finetune'], help=text)
    changes = parser.add_argument_group('in place of what the config says')
    for flag, kind, metavar, text in (
        ('--epochs', types.positive, 'N', 'length; the schedule moves along'),
        ('--batch-size', types.batch_size, 'N|auto', 'images on each process; auto: what fits'),
        ('--image-size', types.number(int, 32), 'PIXELS', 'longer side of the images'),
        ('--lr', types.number(float, 0), 'LR', 'learning rate, not scaled with the batch'),
        (
            '--freeze',
            types.number(int, -1),
            'N',
            'keep stem and N stages of the backbone, -1 none',
        ),
        ('--early-stop', types.positive, 'N', 'end after N evaluations without a better AP'),
        ('--workers', types.number(int, 0, 256), 'N', 'processes that load images'),
        ('--seed', types.number(int, 0, 2**32 - 1), 'N', 'seed of all random numbers'),
    ):
        types.option(changes, flag, kind, metavar, text)
    text = 'name of the run: outputs go to work_dirs/NAME'
    types.option(changes, '--name', types.run_name, 'NAME', text)
    types.add_device(changes)
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=['auto', 'bf16', 'fp16'],
        metavar='bf16|fp16',
        help='mixed precision; without a value fp16 on a GPU and bf16 on a CPU',
    )
    parser.add_argument(
        '--auto-scale-lr',
        nargs='?',
        const='linear',
        choices=['linear', 'sqrt', 'off'],
        metavar='linear|sqrt|off',
        help='how the learning rate follows the images of a step (default: as in the config)',
    )
    start = parser.add_mutually_exclusive_group()
    text = 'weights of the backbone to start from: a file, a URL, or a name of `mpvit weights`'
    types.option(start, '--pretrained', types.backbone_weights, 'FILE|URL|NAME', text)
    start.add_argument(
        '--from-scratch', action='store_true', help='start the backbone from random numbers'
    )
    text = "a detector to start from: a file, a URL, a name of `mpvit weights`, or 'official'"
    types.option(start, '--load-from', types.checkpoint, 'CHECKPOINT', text)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        type=types.resumable,
        metavar='CHECKPOINT',
        help='resume from a checkpoint, or without a value from the newest in the work folder',
    )
    parser.add_argument(
        '--track',
        nargs='+',
        choices=['wandb', 'mlflow'],
        default=[],
        metavar='wandb|mlflow',
        help='record also with Weights & Biases or MLflow; TensorBoard always is',
    )
    types.add_data(parser, 'train', 'val')


def check(parser: argparse.ArgumentParser, given: dict[str, Any]) -> None:
    """Refuse arguments that do not go together."""
    if given['name'] and given['work_dir']:
        parser.error('--name and --work-dir both say where outputs go; leave one out')
    if given['preset'] and (given['from_scratch'] or given['pretrained']):
        parser.error('--preset finetune starts from a trained detector; leave the other out')
    in_place = given['name'] is None and given['work_dir'] is None
    if is_model_file(given['config']) and given['resume'] == 'auto' and in_place:
        given['work_dir'] = str(Path(given['config']).parent)
    elif not any(given[key] for key in ('load_from', 'pretrained', 'from_scratch')):
        given['load_from'] = _start(given)


def _start(given: dict[str, Any]) -> str | None:
    """The detector to start from if none is named.

    That is a checkpoint in the place of the config, and for fine-tuning the published one.
    """
    config = given['config']
    if is_model_file(config):
        return config
    if given['preset'] is None or given['resume'] not in (None, 'auto'):
        return None
    try:
        official(Path(config).stem)
    except UserError as error:
        raise UserError(
            f'--preset finetune: no detector is published for {config}; name a checkpoint to start '
            'from, in the place of the config or with --load-from, such as '
            'work_dirs/mpvit_t_dino_toy, which `make demo` leaves (docs/finetune.md)'
        ) from error
    return PREFIX + OFFICIAL


def run(name: str | None, **arguments: Any) -> None:
    """Train."""
    import mpvit.register  # noqa: F401
    from mpvit.config.flags import TrainingFlags
    from mpvit.engine.train import train

    if name is not None:
        arguments['work_dir'] = f'work_dirs/{name}'
    values = {field.name: arguments.pop(field.name) for field in fields(TrainingFlags)}
    train(flags=TrainingFlags(**values), **arguments)
