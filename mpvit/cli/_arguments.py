"""Arguments that several commands have, and their types.

A type raises `UserError` for what is not there (status 1) and `ArgumentTypeError` for what could
never be right (status 2).
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from mpvit.checkpoints.published import OFFICIAL, PREFIX, entry_of, fetch, official, table
from mpvit.config.names import find_config, is_model_file
from mpvit.datasets.data_files import DataFiles
from mpvit.errors import UserError, did_you_mean
from mpvit.files import paths


def config(name: str) -> str:
    """A config file, the name of one that comes with the package, or a checkpoint that has one."""
    name = paths.expanded(name)
    if is_model_file(name) or (os.path.isdir(name) and paths.best_checkpoint(Path(name))):
        return paths.existing_checkpoint(name)
    try:
        find_config(name)
    except UserError:
        if os.path.isdir(name):
            raise UserError(
                f'{name} is a folder without checkpoints; name a config or a checkpoint'
            ) from None
        raise
    return name


def checkpoint(name: str) -> str:
    """A checkpoint file, work folder or URL, or published weights by name (`mpvit weights`)."""
    if name == OFFICIAL or name in table():
        return name if os.path.isfile(name) else PREFIX + name
    try:
        return paths.existing_checkpoint(name)
    except UserError as error:
        raise UserError(f'{error}{did_you_mean(name, [OFFICIAL, *table()], cutoff=0.8)}') from error


def backbone_weights(name: str) -> str:
    """Weights of a backbone: a file, a URL, or published ones by name."""
    if name == OFFICIAL:
        raise UserError('--pretrained official: the config names its weights already; leave it out')
    return checkpoint(name)


def fetch_published(arguments: dict[str, Any]) -> None:
    """Put the file of published weights in the place of their name, downloaded if need be.

    'official' are those of the config.

    Raises:
        UserError: There are none, they are not of a detector, or they cannot be had.
    """
    for key in ('checkpoint', 'load_from', 'source'):
        name = arguments.get(key)
        if not (isinstance(name, str) and name.startswith(PREFIX)):
            continue
        if name == PREFIX + OFFICIAL:
            config = arguments.get('config')
            if config is None:
                raise UserError(f'{OFFICIAL}: of which config? name the weights (`mpvit weights`)')
            entry = official(Path(config).stem)
        else:
            entry = entry_of(name)
            if key != 'source' and entry.of == 'backbone' and not entry.config:
                raise UserError(f'{entry.name}: these are weights of a backbone, not of a detector')
        arguments[key] = str(fetch(entry))


def resumable(path: str) -> str:
    """A checkpoint to resume from, or 'auto' for the newest in the work folder."""
    return path if path == 'auto' else paths.existing_checkpoint(path)


def override(text: str) -> str:
    """``key=value``; what it names is checked with the config."""
    key, equals, _ = text.partition('=')
    if not (key and equals):
        raise UserError(f'--cfg-options takes key=value, got {text!r}')
    return text


def number(
    kind: type[int] | type[float], low: float, high: float | None = None
) -> Callable[[str], Any]:
    """The type of numbers from ``low`` to ``high``, both included; None for no limit."""

    def parse(text: str) -> float:
        value = kind(text)
        if not low <= value <= (sys.float_info.max if high is None else high):
            wanted = f'{low:g} or more' if high is None else f'from {low:g} to {high:g}'
            raise argparse.ArgumentTypeError(f'choose {wanted}, got {text}')
        return value

    parse.__name__ = kind.__name__  # in argparse's message about what is no number
    return parse


annotations = partial(paths.existing_file, what='annotation file')
image = partial(paths.existing_file, what='image')
positive = number(int, 1)
score = number(float, 0, 1)
count = number(int, 1, 1000)


def batch_size(text: str) -> Any:
    """A number of images, or 'auto'."""
    return text if text == 'auto' else positive(text)


def local_rank(text: str) -> None:
    """The process's number on its machine, which torchrun gives in the environment instead."""
    os.environ.setdefault('LOCAL_RANK', str(int(text)))


def option(
    parser: Any, flag: str, kind: Any, metavar: Any, text: str, default: Any = None, **more: Any
) -> None:
    """An option with a value, whose help ends with its default if there is one."""
    text += '' if default is None else f' (default: {default})'
    parser.add_argument(flag, type=kind, metavar=metavar, help=text, default=default, **more)


def choice(parser: Any, flag: str, values: Sequence[str], text: str) -> None:
    """An option with one of a few values, of which the first is the default."""
    text += f' (default: {values[0]})'
    parser.add_argument(flag, choices=values, default=values[0], help=text)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Arguments of trainings and tests."""
    text = (
        'config: a file, a name (`mpvit configs`), or the checkpoint or work folder of a training'
    )
    parser.add_argument('config', type=config, help=text)
    text = 'folder for outputs (default: work_dirs/<config name>)'
    option(parser, '--work-dir', paths.output_folder, 'DIR', text)
    add_options(parser)
    launchers = ['none', 'pytorch', 'slurm', 'mpi']
    choice(parser, '--launcher', launchers, 'how several processes were started')
    hidden: Any = dict(dest=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument('--local-rank', '--local_rank', type=local_rank, **hidden)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Overrides of config entries."""
    text = 'override config entries, such as train_dataloader.batch_size=4'
    parser.add_argument(
        '--cfg-options', nargs='+', type=override, default=[], metavar='KEY=VALUE', help=text
    )


class Parser(argparse.ArgumentParser):
    """A parser that takes a checkpoint, or a work folder, without a config before it for both.

    The config is then the one that the checkpoint was trained with (`mpvit.config.stored`).
    """

    names_detector = False  # whether CONFIG and CHECKPOINT are among the arguments

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{'allow_abbrev': False, **kwargs})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command line."""
        words = list(sys.argv[1:] if args is None else args)
        first = self._first_positional(words) if self.names_detector else None
        if first is not None:
            place, following = Path(paths.expanded(words[first])), words[first + 1 : first + 2]
            is_run = place.is_dir() and not any(map(is_model_file, following))
            best = paths.best_checkpoint(place) if is_run else None
            words[first] = str(best or words[first])
            if is_model_file(words[first]):
                words.insert(first, words[first])
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """End with a message, which tells where names of configs come from if none was given."""
        if re.search(r'required: config\b', message, re.IGNORECASE):
            message += ' (`mpvit configs` lists names of configs)'
        super().error(str(UserError(message)))  # in one line, whatever was given

    def _first_positional(self, words: Sequence[str]) -> int | None:
        """Place of the first word that is no option and no option's value."""
        before = None
        for place, word in enumerate(words):
            is_value = before is not None and before.nargs != 0
            if not (is_value or word.startswith('-')):
                return place
            before = self._option_string_actions.get(word)
        return None


def add_detector(parser: Any) -> None:
    """A config and its checkpoint."""
    text = 'config file, or name of one; may be left out, since a checkpoint holds its own'
    parser.add_argument('config', type=config, help=text)
    add_checkpoint(parser)


def add_checkpoint(parser: Any) -> None:
    """A checkpoint."""
    text = "file, work folder (its best), URL, name (`mpvit weights`), or 'official': the config's"
    parser.add_argument('checkpoint', type=checkpoint, help=text)
    parser.names_detector = True


class _DataFile(argparse.Action):
    """Puts what an argument names into the `DataFiles` that all of them make together."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        if values is not self.default:  # which an argument without a flag has if it is left out
            field = 'data' if flag is None else self.option_strings[0][2:].replace('-', '_')
            namespace.data = replace(namespace.data, **{field: values})


def add_data(parser: argparse.ArgumentParser, *splits: str, folder: str = '--data') -> None:
    """Arguments that name a dataset in place of the config's, together a `DataFiles`.

    Args:
        parser: Parser.
        *splits: 'train', 'val': of which files can be named.
        folder: Flag of the folder; 'data' for an argument without one.
    """
    group = parser.add_argument_group('data of your own, in COCO format (docs/data.md)')
    flags: list[tuple[str, Any, str, str]] = [
        (folder, paths.existing_folder, 'DIR', 'folder of the dataset')
    ]
    for split in splits:
        flags += [
            (f'--{split}-ann', annotations, 'FILE', f'annotation file for {split}, if not found'),
            (f'--{split}-images', paths.existing_folder, 'DIR', f'folder of images for {split}'),
        ]
    for flag, kind, metavar, text in flags:
        place: Any = dict(dest='data') if flag.startswith('--') else dict(nargs='?')
        place |= dict(action=_DataFile, default=DataFiles())
        group.add_argument(flag, type=kind, metavar=metavar, help=text, **place)


def add_inference(parser: argparse.ArgumentParser) -> None:
    """How a detector is run."""
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation: also the mirror image'
    )
    choice(parser, '--dtype', ['fp32', 'bf16', 'fp16'], 'precision')
    parser.add_argument('--compile', action='store_true', help='compile the detector first')
    parser.add_argument(
        '--no-fold', dest='fold', action='store_false', help='leave batch norms as they are'
    )


def add_device(parser: Any, default: str = 'cuda where there is one') -> None:
    """Where something runs."""
    parser.add_argument('--device', help=f'such as cpu, cuda or cuda:1 (default: {default})')


def run_name(text: str) -> str:
    """The name of a run, which is that of a folder."""
    if not text.strip() or text in ('.', '..') or '/' in text:
        raise argparse.ArgumentTypeError(f'a name without / is wanted, got {text!r}')
    return text


def add_threshold(parser: argparse.ArgumentParser, what: str) -> None:
    """The score from which detections count."""
    option(parser, '--threshold', score, 'SCORE', what, 0.3)
