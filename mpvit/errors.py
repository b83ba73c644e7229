"""The one exception that stands for a mistake of the user, and what its messages have in common."""

import difflib
import importlib
import re
from collections.abc import Iterable
from types import ModuleType

# How torch hands on what a worker of a dataloader raised: as the same class, with the whole
# traceback of the worker as its message. What was raised stands after the last class name.
_FROM_WORKER = re.compile(r'Caught UserError in .*\n[\w.]*UserError: (.*)', re.DOTALL)
# What would change the terminal if it came from a file or a server.
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f]')


class UserError(Exception):
    """Something the user can put right: says what is wrong, where, and what to do, in one line.

    Tools print it without a traceback and exit with status 1 (`mpvit.cli`). One that was raised
    in a worker of a dataloader arrives with the line that it had there.

    Args:
        message: What to print; line breaks become spaces.
        *more: Further mistakes, a line each.
        every_rank: In a distributed run every process that meets it prints it, since it depends on
            the data of the process; otherwise all meet the same one and the first prints it.
    """

    def __init__(self, message: str, *more: str, every_rank: bool = False) -> None:
        wrapped = _FROM_WORKER.match(message)
        texts = (wrapped[1] if wrapped else message, *more)
        lines = (' '.join(text.split()) for text in texts)
        super().__init__('\n'.join(map(printable, lines)))
        self.every_rank = every_rank or wrapped is not None


def printable(line: str) -> str:
    """A line with ``?`` in the place of what a terminal would obey, line breaks among it.

    For everything that is printed with names from files in it.
    """
    return _CONTROL.sub('?', line)


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that an unknown one was probably meant to be.

    They have to be alike by ``cutoff``, from 0 to 1.
    """
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a message about an unknown name: ``'; did you mean train?'``, or nothing."""
    close = closest(name, known, cutoff)
    return f'; did you mean {close}?' if close else ''


def listed(names: Iterable[object], shown: int = 6) -> str:
    """The first of some names, for a line of text."""
    texts = [str(name) for name in names]
    return ', '.join(texts[:shown]) + (', ...' if len(texts) > shown else '')


def optional(package: str, purpose: str, extra: str | None = None) -> ModuleType:
    """Import a package that only some uses need.

    Args:
        package: Its name.
        purpose: What needs it, in the plural, for the error.
        extra: The extra of mpvit that installs it; None for one that mpvit itself requires.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        wanted = f"'mpvit[{extra}]'" if extra else 'mpvit'
        raise UserError(
            f'{purpose} need {package} ({error}); run `pip install {wanted}`'
        ) from error
