"""Files that are whole or not there, whatever happens while they are written."""

import os
import signal
from pathlib import Path

import pytest
import torch
from file_limits import limited_files

from mpvit.checkpoints.writing import NotSaved, check_finite, write_durably

OLD, NEW = b'old' * 1000, b'new' * 5000


def in_a_child(act):
    """Fork, act and leave at once; the status as the shell shows it."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize('call', ['fsync', 'replace'])
def test_killed_around_the_rename(tmp_path, monkeypatch, call):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(OLD)
    before = os.fsync

    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def moved_and_killed(source, target):
        os.replace(source, target)
        kill()

    def act():
        if call == 'fsync':
            monkeypatch.setattr(os, 'fsync', kill)
        else:  # the folder's turn comes after the rename
            monkeypatch.setattr(Path, 'replace', moved_and_killed)
        write_durably(path, lambda file: file.write(NEW))

    assert in_a_child(act) == -signal.SIGKILL
    assert path.read_bytes() == (OLD if call == 'fsync' else NEW)
    assert os.fsync is before


def test_full_disk(tmp_path):
    """With a limit on the size of files, which torch's writer meets as it meets a full disk."""
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(OLD)
    content = dict(w=torch.zeros(100_000), v=torch.zeros(100_000))
    for limit in (1000, 500_000):
        with limited_files(limit), pytest.raises(NotSaved, match=r'epoch_1.pth .*File too large'):
            write_durably(path, lambda file: torch.save(content, file))
        assert path.read_bytes() == OLD
        assert [p.name for p in tmp_path.iterdir()] == ['epoch_1.pth']


def test_folder_that_is_gone(tmp_path):
    with pytest.raises(NotSaved, match='No such file or directory'):
        write_durably(tmp_path / 'gone' / 'x', lambda file: file.write(b'x'))


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_weights_that_are_not_finite(value):
    weights = dict(a=torch.zeros(3), count=torch.tensor(1), steps=7)
    check_finite(weights)
    weights['a'][1] = value
    with pytest.raises(NotSaved, match=r'not finite are not saved \(a\)'):
        check_finite(weights)
