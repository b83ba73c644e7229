"""From a command line to a command, and from an error to one line."""

import importlib
import os
import pkgutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import mpvit
import mpvit.cli
from mpvit import processors
from mpvit.cli import _arguments as types
from mpvit.cli._builds import mixed_builds
from mpvit.errors import UserError, did_you_mean

USAGE = """usage: mpvit COMMAND [ARGUMENT ...]

Deformable DETR with an MPViT backbone. `mpvit COMMAND --help` says what a command takes.

commands:
"""
# What other projects call a command.
_ELSEWHERE = dict(detect='infer', predict='infer', val='test', eval='test', evaluate='test')
_ELSEWHERE |= dict(finetune='train', fit='train', convert='convert_checkpoint', info='model_info')
# What is said in one line; of other errors the traceback is wanted.
_SAID = (UserError, ModuleNotFoundError, OSError, MemoryError, RecursionError)
SCRIPTS = Path(mpvit.__file__).parent / '.mim' / 'tools'  # dist_train.sh and so on


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `mpvit`, with the arguments of the process unless others are given."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ['--help']
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
        run(name, rest, f'mpvit {name}')
    else:
        other = _ELSEWHERE.get(name)
        hint = f'; did you mean {other}?' if other else did_you_mean(name, [*commands(), *scripts])
        hint = hint or '; `mpvit --help` lists the commands'
        sys.stderr.write(f'error: there is no command {name}{hint}\n')
        sys.exit(2)


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
    processors.watch()
    command = load(name)

    def call() -> int | None:
        parser = types.Parser(prog=program, description=command.__doc__)
        command.add_arguments(parser)
        given = vars(parser.parse_args(arguments))
        if hasattr(command, 'check'):
            command.check(parser, given)
        types.fetch_published(given)
        status: int | None = command.run(**given)
        return status

    if status := behind_the_door(call):
        sys.exit(status)


def behind_the_door(main: Callable[[], int | None]) -> int | None:
    """Run something and give its status; what ends it is said in one line, without a traceback.

    Raises:
        SystemExit: With status 1 after a mistake of the user, or where the machine has no room, no
            rights or no such file; with 130 after Ctrl-C. The exception itself with MPVIT_DEBUG.
    """
    try:
        return main()
    except KeyboardInterrupt:
        sys.stderr.write('\ninterrupted\n')
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get('MPVIT_DEBUG') or not (isinstance(error, _SAID) or mixed_builds(error)):
            raise
        rank = os.environ.get('RANK', '0')
        lines = _explain(error)
        if getattr(error, 'every_rank', False) and 'RANK' in os.environ:
            sys.exit('\n'.join(f'error (rank {rank}): {line}' for line in lines))
        _say_once('\n'.join(f'error: {line}' for line in lines))
        sys.exit(1)


def _say_once(message: str) -> None:
    """Say what every process of a distributed run is about to say, on each machine once.

    The first that comes speaks, whatever its rank: the launcher ends the others when it exits. A
    name that only one process can hold tells who is first, and is gone when that process is.
    """
    if int(os.environ.get('WORLD_SIZE', '1')) == 1:
        sys.stderr.write(f'{message}\n')
        return
    run = [os.environ.get(name, '') for name in ('TORCHELASTIC_RUN_ID', 'MASTER_PORT')]
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind('\0mpvit ' + ' '.join(run))
        except OSError:  # another process has it
            return
        sys.stderr.write(f'{message}\n')
        sys.stderr.flush()
        time.sleep(1)


def _explain(error: BaseException) -> list[str]:
    """A line for each mistake."""
    if mixed := mixed_builds(error):
        return [mixed]
    if isinstance(error, UserError):
        return str(error).split('\n')
    if isinstance(error, ModuleNotFoundError):
        return [f'{error.name} is not installed; run `make setup` or `pip install -e .`']
    if isinstance(error, MemoryError):
        return ['memory is full; use smaller batches or images, or a machine with more memory']
    if isinstance(error, RecursionError):
        return ['a file is nested too deeply to be read']
    place = f'{error.filename}: ' if isinstance(error, OSError) and error.filename else ''
    return [place + (getattr(error, 'strerror', None) or ' '.join(str(error).split()))]
