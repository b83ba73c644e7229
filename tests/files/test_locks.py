"""One process at a time writes into a place, and a process that is gone holds nothing."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import filelock
import pytest

from mpvit.errors import UserError
from mpvit.files import locks
from mpvit.files.locks import folder_held, target_held

HOLDER = """
import os, sys, time
from pathlib import Path
from mpvit.files.locks import folder_held
with folder_held(Path(sys.argv[1]), ''):
    if os.fork() == 0:  # as a worker of a dataloader, which outlives its parent for a while
        time.sleep(60)
    print('held', flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(root, tmp_path):
    process = subprocess.Popen(
        [sys.executable, '-c', HOLDER, tmp_path],
        env=dict(os.environ, PYTHONPATH=str(root)),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == 'held\n'
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_the_holder_is_named_and_a_killed_one_holds_nothing(holder, tmp_path):
    with pytest.raises(UserError) as refusal, folder_held(tmp_path, 'do that'):
        pass
    for word in (str(tmp_path), str(holder.pid), socket.gethostname(), 'do that'):
        assert word in str(refusal.value)
    holder.kill()
    holder.wait()
    start = time.monotonic()
    with folder_held(tmp_path, ''):
        assert (tmp_path / '.lock').read_text().startswith(f'{os.getpid()}\n')
    assert time.monotonic() - start < 5  # though the child of the holder lives on
    assert list(tmp_path.iterdir()) == []


def test_it_ends_with_the_block_also_by_an_error(tmp_path):
    target = tmp_path / 'made' / 'model.onnx'
    with target_held(target, ''):
        target.parent.joinpath('written').touch()
        with pytest.raises(UserError, match=r'model.onnx is in use'), target_held(target, ''):
            pass
    with pytest.raises(KeyError), target_held(target, ''):
        raise KeyError
    with target_held(target, ''), target_held(target.with_suffix('.xml'), ''):
        pass
    assert [path.name for path in target.parent.iterdir()] == ['written']
    with folder_held(tmp_path / 'two' / 'new', ''):
        assert (tmp_path / 'two' / 'new').is_dir()
    assert not (tmp_path / 'two').exists()  # as nothing was written


@pytest.mark.parametrize(
    ('number', 'name'),
    [(errno.ENOSYS, '.lock'), (errno.ENOLCK, '.lock-held'), (errno.EOPNOTSUPP, '.lock-held')],
)
@pytest.mark.filterwarnings('ignore:flock not supported')
def test_file_systems_without_locks(tmp_path, monkeypatch, number, name):
    """The file is the lock there."""

    def flock(*_):
        raise OSError(number, 'no locks here')

    monkeypatch.setattr(filelock._unix.fcntl, 'flock', flock)
    monkeypatch.setattr(locks, '_PATIENCE', 0.1)
    with folder_held(tmp_path, ''):
        with pytest.raises(UserError, match=rf'{os.getpid()}.*delete .*{name}'):
            with folder_held(tmp_path, ''):
                pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).write_text(f'{2**22 + 1}\n{filelock._identity.host_name()}\n')
    with folder_held(tmp_path, ''):  # left by a process of this host that is gone
        pass
    (tmp_path / name).write_text('17\nelsewhere\n')
    with pytest.raises(UserError, match='process 17 on elsewhere'), folder_held(tmp_path, ''):
        pass


def test_links_to_a_target_are_one_target(tmp_path):
    (tmp_path / 'found').mkdir()
    (tmp_path / 'link').symlink_to('found')
    (tmp_path / 'elsewhere').symlink_to('.')
    with target_held(tmp_path / 'found', ''):
        for other in ('link', 'elsewhere/found', 'found/.'):
            with pytest.raises(UserError, match='in use'), target_held(tmp_path / other, ''):
                pass
    with target_held(tmp_path / 'new.onnx', ''):
        other = tmp_path / 'elsewhere' / 'new.onnx'
        with pytest.raises(UserError, match='in use'), target_held(other, ''):
            pass


def test_the_lock_of_another_in_the_same_place_stays(tmp_path):
    """A folder is moved away while its run holds it, and another run begins in its place."""
    work = tmp_path / 'work'
    with ExitStack() as second:
        with folder_held(work, ''):
            work.rename(tmp_path / 'moved')
            second.enter_context(folder_held(work, ''))
        with pytest.raises(UserError, match='in use'), folder_held(work, ''):
            pass
    assert list(work.iterdir()) == [] if work.exists() else True
