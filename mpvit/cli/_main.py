"""From a command line to a command, and out again by one door (`mpvit.cli._door`)."""

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import mpvit
import mpvit.cli
from mpvit import processors
from mpvit.cli import _arguments as types
from mpvit.cli._door import behind_the_door
from mpvit.errors import UserError, did_you_mean

USAGE = """usage: mpvit COMMAND [ARGUMENT ...]

Deformable DETR with an MPViT backbone. `mpvit COMMAND --help` says what a command takes.

commands:
"""
# What other projects call a command.
_ELSEWHERE = dict(detect='infer', predict='infer', val='test', eval='test', evaluate='test')
_ELSEWHERE |= dict(finetune='train', fit='train', convert='convert_checkpoint', info='model_info')
SCRIPTS = Path(mpvit.__file__).parent / '.mim' / 'tools'  # dist_train.sh and so on


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `mpvit`, with the arguments of the process unless others are given."""
    _exit(lambda: _called(sys.argv[1:] if arguments is None else arguments))


def _called(arguments: Sequence[str]) -> int | None:
    name, *rest = arguments or ['--help']
    scripts = {path.stem: path for path in sorted(SCRIPTS.glob('[!_]*.sh'))}
    if name in ('-h', '--help'):
        summaries = {command: summary(load(command)) for command in commands()}
        summaries |= {script: _comment(path) for script, path in scripts.items()}
        width = max(map(len, summaries))
        lines = [f'  {command:{width}}  {text}\n' for command, text in sorted(summaries.items())]
        sys.stdout.write(USAGE + ''.join(lines))
    elif name == '--version':
        sys.stdout.write(f'mpvit {mpvit.__version__}\n')
    elif (name := name.replace('-', '_')) in scripts:
        python = Path(sys.executable).parent  # the scripts call `python`
        os.environ['PATH'] = os.pathsep.join([str(python), os.environ.get('PATH', os.defpath)])
        os.execvp('bash', ['bash', str(scripts[name]), *rest])
    elif name in commands():
        return _run(name, rest, f'mpvit {name}')
    else:
        other = _ELSEWHERE.get(name)
        hint = f'; did you mean {other}?' if other else did_you_mean(name, [*commands(), *scripts])
        hint = hint or '; `mpvit --help` lists the commands'
        sys.stderr.write(f'error: {UserError(f"there is no command {name}{hint}")}\n')
        return 2
    return None


def commands() -> list[str]:
    """Names of the commands."""
    found = (module.name for module in pkgutil.iter_modules(mpvit.cli.__path__))
    return [name for name in found if not name.startswith('_')]


def load(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f'mpvit.cli.{name}')


def summary(command: ModuleType) -> str:
    """What a command does, in a line."""
    return (command.__doc__ or '').partition('\n')[0].rstrip('.')


def _comment(script: Path) -> str:
    line = script.read_text(encoding='utf-8').split('\n')[1].removeprefix('# ')
    return line.partition(': ')[0].rstrip('.')


def run(name: str, arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run a command and exit with its status, if that is not 0.

    Args:
        name: Name of the command.
        arguments: Its command line; None for that of the process.
        program: What the usage calls it; None for the name of the script.
    """
    _exit(lambda: _run(name, arguments, program))


def _exit(main: Callable[[], int | None]) -> None:
    if status := behind_the_door(main):
        sys.exit(status)


def _run(name: str, arguments: Sequence[str] | None, program: str | None) -> int | None:
    processors.watch()
    # All pictures go to files. matplotlib cannot even be imported where this names no backend of
    # its own; in the notebook of somebody who imports this package it stays as it is.
    os.environ['MPLBACKEND'] = 'Agg'
    command = load(name)
    parser = types.Parser(prog=program, description=command.__doc__)
    command.add_arguments(parser)
    given = vars(parser.parse_args(arguments))
    if hasattr(command, 'check'):
        command.check(parser, given)
    types.fetch_published(given)
    status: int | None = command.run(**given)
    return status
