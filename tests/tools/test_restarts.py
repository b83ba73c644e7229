"""Killed processes and machines under torchrun's restarts: the run goes on from its checkpoint."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from runs import environment, wait_for

from mpvit.checkpoints.reading import read

pytestmark = pytest.mark.slow

EPOCHS = 8


def start(root, tiny, work, log, *torchrun, **variables):
    """Torchrun, which stands for one machine."""
    config, places = tiny
    return subprocess.Popen(
        [
            sys.executable, '-m', 'torch.distributed.run', *torchrun,
            'tools/train.py', str(config), '--launcher', 'pytorch', '--resume',
            '--work-dir', str(work), '--cfg-options', *places,
            f'train_cfg.max_epochs={EPOCHS}', 'train_dataloader.batch_size=2',
        ],
        cwd=root,
        env=environment(root, **variables),
        stdout=log,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def cut_off(process):
    """Kill a torchrun and all below it, which run in sessions of their own."""
    for pid in [process.pid, *descendants(process.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def descendants(pid):
    found = []
    for entry in os.listdir('/proc'):
        if entry.isdigit():
            try:
                fields = open(f'/proc/{entry}/stat').read().rpartition(')')[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found += [int(entry), *descendants(int(entry))]
    return found


def workers(pid):
    """Training processes below a torchrun, without the workers of their dataloaders."""
    children = []
    for child in descendants(pid):
        try:
            command = open(f'/proc/{child}/cmdline').read()
        except OSError:
            continue
        if 'tools/train.py' in command and 'torch.distributed.run' not in command:
            children.append(child)
    return sorted(children)


def weights(work):
    return read(work / f'epoch_{EPOCHS}.pth')['state_dict']


def assert_equal_results(one, other):
    first, second = weights(one), weights(other)
    assert all(value.isfinite().all() for value in first.values())
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope='module')
def uninterrupted(root, tiny, tmp_path_factory):
    """Work folder of the same run without any fault."""
    work = tmp_path_factory.mktemp('uninterrupted')
    with (work / 'log.txt').open('w') as log:
        process = start(root, tiny, work, log, '--standalone', '--nproc-per-node=2')
        assert process.wait(500) == 0, (work / 'log.txt').read_text()[-3000:]
    return work


def test_a_killed_process_is_restarted(root, tiny, tmp_path, uninterrupted):
    work = tmp_path / 'work'
    with (tmp_path / 'log.txt').open('w') as log:
        process = start(
            root, tiny, work, log, '--standalone', '--nproc-per-node=2', '--max-restarts=1'
        )
        try:
            wait_for((work / 'epoch_2.pth').exists, 'second epoch')
            victim = workers(process.pid)[-1]
            os.kill(victim, signal.SIGKILL)
            assert process.wait(500) == 0, (tmp_path / 'log.txt').read_text()[-3000:]
        finally:
            cut_off(process)
    assert_equal_results(work, uninterrupted)


def test_without_restarts_the_run_ends_with_the_cause(root, tiny, tmp_path):
    work = tmp_path / 'work'
    with (tmp_path / 'log.txt').open('w') as log:
        process = start(root, tiny, work, log, '--standalone', '--nproc-per-node=2')
        try:
            wait_for((work / 'epoch_1.pth').exists, 'first epoch')
            victim = workers(process.pid)[-1]
            os.kill(victim, signal.SIGKILL)
            assert process.wait(60) != 0
        finally:
            cut_off(process)
    text = (tmp_path / 'log.txt').read_text()
    assert f'Signal 9 (SIGKILL) received by PID {victim}' in text


def test_a_machine_is_cut_off_and_comes_back(root, tiny, tmp_path, uninterrupted):
    """Two torchruns meet over loopback; all of the second one is killed, then started anew."""
    work = tmp_path / 'work'
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        port = server.getsockname()[1]
    nodes = [
        '--nnodes=2', '--nproc-per-node=1', '--max-restarts=3', '--rdzv-backend=c10d',
        f'--rdzv-endpoint=127.0.0.1:{port}', '--rdzv-id=test',
    ]  # fmt: skip
    with (tmp_path / 'log.txt').open('w') as log:
        # as docs/train.md says: otherwise a machine that comes back is not told the new address
        apart = dict(TORCH_DISABLE_SHARE_RDZV_TCP_STORE='1')
        first = start(root, tiny, work, log, *nodes, **apart)
        time.sleep(2)  # the first machine holds the meeting place
        second = start(root, tiny, work, log, *nodes, **apart)
        third = None
        try:
            wait_for((work / 'epoch_2.pth').exists, 'second epoch')
            cut_off(second)
            time.sleep(5)
            assert first.poll() is None  # waits for the other to come back
            third = start(root, tiny, work, log, *nodes, **apart)
            assert first.wait(500) == 0, (tmp_path / 'log.txt').read_text()[-3000:]
            assert third.wait(60) == 0
        finally:
            for process in filter(None, (first, second, third)):
                cut_off(process)
    assert_equal_results(work, uninterrupted)
