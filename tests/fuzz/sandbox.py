"""Runs a command in a forked process, within limits, and notes what it does to the machine."""

import atexit
import ctypes
import errno
import multiprocessing.util
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from fuzz.cases import Fault

CPU_SECONDS, IDLE_SECONDS = 60.0, 10.0  # of all processes of a command; without any work
MEMORY = 3 * 2**30  # bytes of a process beyond those it began with
FILE_SIZE = 64 * 2**20
_SUBREAPER = 36  # of prctl: orphans become children of this process
# What a run records of the machine, and the source's revision.
_HARMLESS = (['/bin/sh', '-c', 'gcc --version'], ['uname', '-p'])
_STARTS = ('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn', 'pty.spawn')
_CHANGES = ('os.remove', 'os.rmdir', 'os.mkdir', 'os.truncate', 'os.chmod', 'os.chown', 'os.utime')
_CHANGES += ('os.rename', 'os.link', 'os.symlink')
_TICKS = os.sysconf('SC_CLK_TCK')


@dataclass
class Outcome:
    """How a command ended.

    Attributes:
        status: Its exit status; negative for a signal that ended it; None if it had to be ended.
        out: What it wrote to its output.
        err: What it wrote to its error output.
        notes: What it did that it must not do.
        seconds: Processor time.
    """

    status: int | None
    out: str
    err: str
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


class _Watch:
    """An audit hook: shuts the network, lets files fail, and notes what leaves the folder."""

    def __init__(self, folder: Path, notes: int, fault: Fault | None) -> None:
        self._inside = [f'{folder}/{name}' for name in ('run', 'tmp', 'home')]
        self._inputs = (f'{folder}/in', f'{folder}/run')
        self._run = f'{folder}/run'
        self._notes, self._fault = notes, fault
        self._count, self._broken = 0, ''

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == 'open':
            self._open(*args)
        elif event in ('os.listdir', 'os.scandir'):
            self._count_down('read', self._real(args[0] or '.'))
        elif event in _CHANGES:
            self._change(event, args)
        elif event in _STARTS:
            self._start(event, args)
        elif event in ('socket.connect', 'socket.sendto'):
            if args[0].family != socket.AF_UNIX:
                raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        elif event in ('socket.getaddrinfo', 'socket.gethostbyname'):
            raise socket.gaierror(socket.EAI_AGAIN, 'Temporary failure in name resolution')

    def _change(self, event: str, args: tuple[Any, ...]) -> None:
        """Note a change of the file system; of two paths both are looked at, but not a target."""
        if event in ('os.rename', 'os.link', 'os.symlink'):
            places = [self._real(path) for path in args[event == 'os.symlink' : 2]]
        else:
            places = [self._real(args[0], args[-1] if event != 'os.truncate' else -1)]
        for place in places:
            self._check(event, place)
        if event == 'os.mkdir':
            self._count_down('write', places[0])

    def _open(self, path: Any, mode: str | None, flags: int) -> None:
        if isinstance(path, int) or path is None:
            return
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        place = self._real(path)
        if writes:
            self._check('open', place)
        self._count_down('write' if writes else 'read', place)

    def _real(self, path: Any, folder: Any = -1) -> str:
        """A path without links, but for a link at its end."""
        if isinstance(path, int):
            return os.readlink(f'/proc/self/fd/{path}')
        text = os.path.expanduser(os.fsdecode(path))
        if isinstance(folder, int) and folder >= 0:
            text = os.path.join(os.readlink(f'/proc/self/fd/{folder}'), text)
        head, tail = os.path.split(os.path.abspath(text))
        return os.path.join(os.path.realpath(head), tail)

    def _check(self, event: str, place: str) -> None:
        inside = any(place == root or place.startswith(f'{root}/') for root in self._inside)
        harmless = place.startswith(('/dev/', '/proc/')) or '__pycache__' in place
        if not (inside or (harmless and 'mpvit-fuzz-' not in place)):
            self._note(f'outside its folder: {event} {place!r}')

    def _start(self, event: str, args: tuple[Any, ...]) -> None:
        words = args[1] if event != 'os.system' else args[0]
        words = words if isinstance(words, str | bytes) else [*map(os.fsdecode, words)]
        if words[0] not in (sys.executable, 'git') and words not in _HARMLESS:
            self._note(f'a program was started: {event} {words!r}'[:300])

    def _count_down(self, kind: str, place: str) -> None:
        fault = self._fault
        if fault is None or fault.kind not in (kind, 'signal'):
            return
        if not place.startswith(self._run if fault.kind == 'write' else self._inputs):
            return
        self._count += 1
        if self._count == fault.at + 1:
            if fault.kind == 'signal':
                os.kill(os.getpid(), fault.number)
                return
            self._broken = os.path.dirname(place) if fault.kind == 'write' else place
        if self._broken and place.startswith(self._broken) and fault.kind != 'signal':
            raise OSError(fault.number, os.strerror(fault.number), place)

    def _note(self, text: str) -> None:
        os.write(self._notes, f'{text}\n'.encode(errors='backslashreplace'))


def run(words: list[str], folder: Path, fault: Fault | None = None) -> Outcome:
    """Run a command line in a folder, in a process of its own."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    files = {name: folder / f'.{name}' for name in ('out', 'err', 'notes')}
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _become(words, folder, files, fault)
    status, seconds, why = _awaited(pid)
    left = [_name(child) for child in _below(os.getpid())]
    if left and status is not None and status >= 0:
        time.sleep(1)  # workers end when they see that their parent is gone
        left = [_name(child) for child in _below(os.getpid())]
        why += [f'left running: {name}' for name in left]
    _end(list(_below(os.getpid())))
    texts = {name: path.read_text(errors='backslashreplace') for name, path in files.items()}
    notes = list(dict.fromkeys(texts['notes'].splitlines()))
    return Outcome(status, texts['out'], texts['err'], [*why, *notes], seconds)


def _become(
    words: list[str], folder: Path, files: dict[str, Path], fault: Fault | None
) -> NoReturn:
    """Turn this process into one that runs a command as a shell would have started it."""
    status = 1
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC
        out, err, notes = (os.open(path, flags, 0o600) for path in files.values())
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(_nobody_reads() if fault and fault.kind == 'pipe' else out, 1)
        os.dup2(err, 2)
        os.chdir(folder / 'run')
        os.environ |= dict(HOME=f'{folder}/home', TMPDIR=f'{folder}/tmp', PWD=f'{folder}/run')
        os.environ |= dict(MPVIT_WEIGHTS=f'{folder}/in', TERM='dumb')
        tempfile.tempdir = None
        atexit._clear()  # what the process that this one was forked from has to clear away
        atexit.register(multiprocessing.util._exit_function)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        size = fault.number if fault and fault.kind == 'full' else FILE_SIZE
        space = _memory(os.getpid(), 0) + MEMORY + 2**30
        for limit, value in (('CORE', 0), ('FSIZE', size), ('AS', space)):
            resource.setrlimit(getattr(resource, f'RLIMIT_{limit}'), (value, value))
        sys.argv[:] = ['mpvit', *words]
        sys.addaudithook(_Watch(folder, notes, fault))
        status = _status(words)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _status(words: list[str]) -> int:
    """What the interpreter makes of the end of a program."""
    from mpvit.cli._main import main

    status = 0
    try:
        try:
            main(words)
        finally:
            threading._shutdown()
    except SystemExit as stop:
        if stop.code is not None:
            status = stop.code if isinstance(stop.code, int) else 1
            if not isinstance(stop.code, int):
                sys.stderr.write(f'{stop.code}\n')
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        sys.stderr.write(f'Exception ignored: {error!r}\n')
        status = 120
    sys.stderr.flush()
    return status & 0xFF


def _nobody_reads() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _awaited(pid: int) -> tuple[int | None, float, list[str]]:
    """Wait for a process, or end it and say why."""
    seconds, active = 0.0, time.monotonic()
    begun = _memory(pid, 1)
    while True:
        for _ in range(10):
            found, code, used = os.wait4(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(code), used.ru_utime + used.ru_stime, []
            time.sleep(0.01)
        tree = [pid, *_below(pid)]
        now = sum(map(_seconds, tree))
        # a slow disk (D) and a busy machine (R) are no faults of the command
        if now > seconds or any(_fields(process)[:1] in (['D'], ['R']) for process in tree):
            seconds, active = now, time.monotonic()
        why = ''
        if now > CPU_SECONDS:
            why = f'hung: more than {CPU_SECONDS:g} s of processor time'
        elif time.monotonic() - active > IDLE_SECONDS:
            why = f'hung: did nothing for {IDLE_SECONDS:g} s'
        elif max(_memory(process, 1) for process in tree) > begun + MEMORY:
            why = f'more than {MEMORY:,} bytes of memory'
        if why:
            _end(tree)
            return None, now, [why]


def _end(processes: list[int]) -> None:
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # gone, or a child of another one, which comes to this process in a moment


def _below(pid: int) -> Iterator[int]:
    """Processes that a process started, and those that they started."""
    try:
        children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    except OSError:
        return
    for child in map(int, children):
        yield child
        yield from _below(child)


def _fields(pid: int) -> list[str]:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(') ')[2].split()
    except OSError:
        return []


def _seconds(pid: int) -> float:
    return sum(map(int, _fields(pid)[11:15])) / _TICKS


def _memory(pid: int, column: int) -> int:
    """Bytes of a process: its addresses (column 0) or what is in memory (1)."""
    try:
        return int(Path(f'/proc/{pid}/statm').read_text().split()[column]) * resource.getpagesize()
    except OSError:
        return 0


def _name(pid: int) -> str:
    try:
        return Path(f'/proc/{pid}/cmdline').read_text().replace('\0', ' ')[:200]
    except OSError:
        return 'a process'
