"""The one way out of a command: its status, and a line for what ends it and is no fault of ours.

Other errors are faults of the software, whose traceback is wanted; MPVIT_DEBUG shows that of all.
"""

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

from mpvit.cli._builds import mixed_builds
from mpvit.errors import UserError

_AGAIN = 2.0  # seconds within which a second SIGTERM is the first one, also sent by a launcher
_LONGEST = 1000  # characters of an error that are said
_MEMORY = 'memory is full; use smaller batches or images, or a machine with more memory'
# The class of an error, what its text holds, and what is said: {0} is its text, {1} the last word.
_SAID: tuple[tuple[type[Exception], str, str], ...] = (
    (MemoryError, '', _MEMORY),
    (RuntimeError, 'out of memory', _MEMORY),
    (RuntimeError, "can't allocate memory", _MEMORY),
    (RuntimeError, "can't start new thread", 'the system gives no more threads; use fewer workers'),
    (RuntimeError, 'Symlink loop', '{0}'),
    (RecursionError, '', 'a file is nested too deeply to be read'),
    (UnicodeError, '', 'a text is no Unicode: {0}'),
    (ValueError, 'embedded null', 'the name of a file holds a NUL character, which none may'),
    (AttributeError, "'ConfigDict' object has no attribute", 'the config has no entry {1}'),
    (OSError, '', '{0}'),
)


class Terminated(SystemExit):
    """A SIGTERM, raised where the program was, so that what it writes is completed or removed."""


def behind_the_door(main: Callable[[], int | None]) -> int | None:
    """Run something and give its status; what ends it is said in one line, without a traceback.

    Raises:
        SystemExit: With status 1 after a mistake of the user, where the machine has no room, no
            rights or no such file, and where nobody reads the output; with 130 after Ctrl-C and 143
            after SIGTERM. The exception itself with MPVIT_DEBUG.
    """
    logging.raiseExceptions = False  # or it prints a traceback for each line where a disk is full
    if sys.stdout is not None and sys.stdout.errors == 'strict':  # names that are no Unicode
        sys.stdout.reconfigure(errors='backslashreplace')  # type: ignore[union-attr]
    try:
        with _sigterm_raises():
            return _flushed(main)
    except (Exception, KeyboardInterrupt, Terminated) as error:
        request = _request(error)
        lines = _explain(error)
        if request is not None:
            status = 128 + request
            _say('\ninterrupted' if request == signal.SIGINT else '\nterminated')
        elif isinstance(error, BrokenPipeError) and _unread(sys.stdout, sys.stderr):
            status = 1  # who reads the output has seen enough
        elif lines is None or os.environ.get('MPVIT_DEBUG'):
            raise
        else:
            status = 1
            _report(lines, every_rank=getattr(error, 'every_rank', False))
    _discard(sys.stdout)
    _discard(sys.stderr)
    sys.exit(status)


def _flushed(main: Callable[[], int | None]) -> int | None:
    """Call something and flush its output: what cannot be written is an error now, not at exit."""
    try:
        status = main()
    except SystemExit:
        _flush(sys.stdout)
        raise
    _flush(sys.stdout)
    return status


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Raise `Terminated` at a SIGTERM, unless something else answers it.

    A process of a distributed run ends at once, as its launcher expects: while it waits for others
    in a library nothing could be raised.
    """
    process, first = os.getpid(), 0.0

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if os.getpid() != process or (first and time.monotonic() - first > _AGAIN):
            signal.signal(number, signal.SIG_DFL)  # a child; or it was not heard
            os.kill(os.getpid(), number)
        elif not first:
            first = time.monotonic()
            raise Terminated(128 + number)

    main_thread = threading.current_thread() is threading.main_thread()
    alone = _processes() == 1
    if not (alone and main_thread and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL):
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _request(error: BaseException) -> signal.Signals | None:
    """The signal that ended the program, also where a library made another error of it."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, KeyboardInterrupt):
            return signal.SIGINT
        if isinstance(current, Terminated):
            return signal.SIGTERM
        current = current.__cause__ or current.__context__
    return None


def _explain(error: BaseException) -> list[str] | None:
    """A line for each mistake; None for a fault of the software."""
    if mixed := mixed_builds(error):
        return [mixed]
    if isinstance(error, UserError):
        return str(error).split('\n')
    if isinstance(error, ModuleNotFoundError):
        return [f'{error.name} is not installed; run `make setup` or `pip install -e .`']
    text = _text(error)
    for kind, part, line in _SAID:
        if isinstance(error, kind) and part in text:
            last = text.rpartition(' ')[2].strip("'")
            return [str(UserError(line.format(text, last)))]  # without control characters
    return None


def _text(error: BaseException) -> str:
    """What an error says, in a line."""
    if isinstance(error, OSError) and error.strerror:
        named = isinstance(error.filename, str | bytes)  # and no number of an open file
        place = f'{os.fsdecode(error.filename)}: ' if named else ''
        return f'{place}{error.strerror}'
    if isinstance(error, UnicodeEncodeError):
        return f'{error.object[:60]!a} ({error.reason})'
    text = str(error).strip()
    if 'Original Traceback' in text:  # of a worker of a dataloader: its last line is the error
        text = text.rpartition('\n')[2]
    return ' '.join(text[:_LONGEST].split())


def _report(lines: list[str], every_rank: bool) -> None:
    """Say what ended a command; in a distributed run each process for itself, or one for all."""
    if every_rank and 'RANK' in os.environ:
        rank = os.environ['RANK']
        _say('\n'.join(f'error (rank {rank}): {line}' for line in lines))
        return
    message = '\n'.join(f'error: {line}' for line in lines)
    if _processes() == 1:
        _say(message)
        return
    # The first that comes speaks, whatever its rank: the launcher ends the others when it exits. A
    # name that only one process can hold tells who is first, and is gone when that process is.
    run = [os.environ.get(name, '') for name in ('TORCHELASTIC_RUN_ID', 'MASTER_PORT')]
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind('\0mpvit ' + ' '.join(run))
        except OSError:  # another process has it
            return
        _say(message)
        time.sleep(1)


def _processes() -> int:
    """How many processes the run has: what a launcher says, or 1 where that is no number."""
    try:
        return max(1, int(os.environ.get('WORLD_SIZE', '1')))
    except ValueError:
        return 1


def _say(message: str) -> None:
    with suppress(OSError, AttributeError):  # stderr is closed, or None
        sys.stderr.write(f'{message}\n')
        sys.stderr.flush()


def _unread(*streams: TextIO | None) -> bool:
    """Whether the reader of a pipe is gone."""
    poll = select.poll()
    for stream in streams:
        with suppress(OSError, ValueError, AttributeError):  # no real file, closed, None
            poll.register(stream.fileno(), 0)  # type: ignore[union-attr]
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _flush(stream: TextIO | None) -> None:
    if stream is not None:  # as where the terminal was closed
        stream.flush()


def _discard(stream: TextIO) -> None:
    """Drop what cannot be written, so that Python does not complain of it when it ends."""
    try:
        _flush(stream)
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
