"""Processes that torchrun starts again after one was killed find each other."""

import subprocess
import sys

import pytest
from runs import environment

# Rank 1 is killed once both have met. After the restart one of them is late, as on a busy machine:
# the other one reads what the store already has in its place.
WORKER = """
import os, signal, sys, time
from datetime import timedelta
import torch
from torch import distributed
rank, again = int(os.environ['RANK']), os.environ['TORCHELASTIC_RESTART_COUNT'] != '0'
if again and rank == int(sys.argv[1]):
    time.sleep(2)
distributed.init_process_group('gloo', timeout=timedelta(seconds=120))
total = torch.ones(1)
distributed.all_reduce(total)
if not again:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
os.write(1, f'rank {rank} of {int(total)}\\n'.encode())
distributed.destroy_process_group()
"""


@pytest.mark.parametrize('late', [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_restarted_process_finds_the_other_however_late(root, tmp_path, late):
    """In torch 2.13's own store rank 0 reads where the dead rank 1 was: connection refused."""
    (tmp_path / 'worker.py').write_text(WORKER)
    result = subprocess.run(
        [sys.executable, '-m', 'mpvit.engine.torchrun', '--standalone', '--nproc-per-node=2']
        + ['--max-restarts=1', tmp_path / 'worker.py', str(late)],
        env=environment(root),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == ['rank 0 of 2', 'rank 1 of 2']
