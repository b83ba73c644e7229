"""What ends a command leaves one line and a status; a fault of the software its traceback."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mpvit.cli import _main
from mpvit.cli._door import Terminated, behind_the_door
from mpvit.errors import UserError


def fail(error):
    """A command that ends in an error."""

    def main():
        raise error

    return main


@pytest.fixture
def ended(capfd):
    """Call something behind the door; its status, and the lines that it said."""

    def call(main):
        with pytest.raises(SystemExit) as stop:
            behind_the_door(main)
        return stop.value.code, capfd.readouterr().err.strip().splitlines()

    return call


FROM_WORKER = (
    'Caught PermissionError in DataLoader worker process 0.\nOriginal Traceback (most recent call '
    'last):\n  File "x.py"\nPermissionError: [Errno 13] Permission denied: \'x.jpg\''
)


@pytest.mark.parametrize(
    ('error', 'helps'),
    [
        (UserError('what, where\n, what to do'), 'what, where , what to do'),
        (PermissionError(13, 'Permission denied', 'out.json'), 'out.json: Permission denied'),
        (OSError(28, 'No space left on device'), 'No space left'),
        (OSError(36, 'File name too long', 'a\x1b[31m'), 'a?[31m: File name too long'),
        (OSError(40, 'Too many levels of symbolic links', b'loop\xff'), 'loop'),
        (BrokenPipeError(32, 'Broken pipe'), 'Broken pipe'),  # not that of the output
        (PermissionError(FROM_WORKER), "[Errno 13] Permission denied: 'x.jpg'"),
        (RuntimeError("Symlink loop from '/a/b'"), '/a/b'),
        (RuntimeError("can't start new thread"), 'threads'),
        (RuntimeError('CUDA out of memory. Tried to allocate'), 'memory'),
        (MemoryError(), 'memory'),
        (RecursionError('maximum recursion depth exceeded'), 'nested'),
        (UnicodeEncodeError('utf-8', 'cat\ud800', 3, 4, 'surrogates'), 'cat\\ud800'),
        (UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte'), 'invalid start byte'),
        (ValueError('embedded null byte'), 'NUL'),
        (AttributeError("'ConfigDict' object has no attribute 'model'"), 'no entry model'),
        (ModuleNotFoundError(name='gradio'), 'gradio'),
    ],
)
def test_one_line_and_status_1(ended, error, helps):
    status, lines = ended(fail(error))
    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith('error: ')
    assert helps in lines[0]


@pytest.mark.parametrize(
    'error',
    [
        ZeroDivisionError('division by zero'),
        KeyError('boxes'),
        ValueError('x'),
        RuntimeError('mat1 and mat2 shapes cannot be multiplied'),
        AttributeError("'NoneType' object has no attribute 'model'"),
        ImportError('cannot import name'),
    ],
)
def test_a_fault_of_the_software_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        behind_the_door(fail(error))


def test_a_variable_shows_every_traceback(monkeypatch):
    monkeypatch.setenv('MPVIT_DEBUG', '1')
    with pytest.raises(PermissionError):
        behind_the_door(fail(PermissionError(13, 'Permission denied', 'x')))


def swallowed(act):
    """As mmengine formats a config: any exception becomes another."""
    try:
        act()
    except:  # noqa: E722
        raise SyntaxError('Failed to format the config file') from None


@pytest.mark.parametrize('library', [lambda act: act(), swallowed])
def test_interrupts(ended, library):
    def interrupted():
        library(lambda: os.kill(os.getpid(), signal.SIGINT) or time.sleep(5))

    assert ended(interrupted) == (130, ['interrupted'])

    closed = []

    def terminated():
        try:
            library(lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # once more, as `timeout` sends it
            closed.append(True)

    assert ended(terminated) == (143, ['terminated'])
    assert closed
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_command_that_answers_signals_itself_does(ended):
    heard = []

    def main():
        signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
        os.kill(os.getpid(), signal.SIGTERM)
        raise SystemExit(7)

    assert ended(main) == (7, [])
    assert heard


def test_children_and_processes_of_a_distributed_run_end_at_once(monkeypatch):
    def kill_a_child():
        child = os.fork()
        if child == 0:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                os._exit(3)
        return -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert behind_the_door(kill_a_child) == signal.SIGTERM
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert behind_the_door(lambda: signal.getsignal(signal.SIGTERM)) == signal.SIG_DFL


@pytest.mark.parametrize('text', ['', 'abc', '0', '1.5'])
def test_a_number_of_processes_that_is_none_is_one(ended, monkeypatch, text):
    monkeypatch.setenv('WORLD_SIZE', text)
    assert ended(fail(UserError('what'))) == (1, ['error: what'])
    with pytest.raises(SystemExit) as stop:
        behind_the_door(lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5))
    assert stop.value.code == 143


@pytest.mark.parametrize('backend', ['nonsense', 'TkAgg'])
def test_commands_draw_into_files_whatever_shows_pictures_elsewhere(root, backend):
    code = (
        "from mpvit.cli import _main; _main.run('configs', []); import matplotlib; "
        "print(matplotlib.rcParams['backend'])"
    )
    environment = dict(os.environ, MPLBACKEND=backend, PYTHONPATH=str(root))
    lines = subprocess.check_output(
        [sys.executable, '-c', code], cwd=root, env=environment, text=True
    ).splitlines()
    assert lines[-1].lower() == 'agg'


def test_terminated_is_no_error_that_a_library_keeps():
    assert not issubclass(Terminated, Exception)


@pytest.mark.parametrize('command', _main.commands())
def test_a_wrong_flag_of_any_command(command, capfd):
    with pytest.raises(SystemExit) as stop:
        _main.run(command, ['--no-such-flag', 'x'])
    assert stop.value.code in (1, 2)  # 1: it is looked for as a file first
    assert 'Traceback' not in capfd.readouterr().err


@pytest.mark.parametrize(
    ('shell', 'status', 'said'),
    [
        ('{} configs > /dev/full', 1, 'No space left'),
        ('{} configs >&-', 0, ''),
        ('{} configs nowhere 2>&-', 1, ''),
        ('(sleep 0.3; {} --help; echo $? >&2) | true', 0, '1'),
        ('{} configs | head -n 1', 0, ''),
    ],
)
def test_output_that_nobody_takes(root, shell, status, said):
    command = shell.format(f'{sys.executable} -m mpvit')
    result = subprocess.run(
        ['bash', '-c', command], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == status
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == bool(said)
