"""What ends a run from outside, made to happen, and the line it leaves."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing
from torch.utils.data import DataLoader, Dataset

from mpvit.engine.run_errors import explain, explained_faults
from mpvit.errors import UserError


class Deadly(Dataset):
    """A dataset whose worker comes to harm at the second image."""

    def __init__(self, harm):
        self.harm = harm

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index:
            self.harm()
        return index


def kill(number):
    os.kill(os.getpid(), number)


HARM = {
    'killed': (lambda: kill(signal.SIGKILL), 'worker .*Kill'),
    'exited': (lambda: os._exit(1), 'worker .*exited unexpectedly'),
    # what the kernel sends where /dev/shm is full
    'bus error': (lambda: kill(signal.SIGBUS), '--shm-size'),
    'numpy': (lambda: np.empty(1 << 50, np.int64), 'out of memory'),
    'torch': (lambda: torch.empty(1 << 50), 'out of memory'),
}


@pytest.mark.parametrize('kind', HARM)
def test_a_worker_that_dies(kind, tmp_path):
    harm, message = HARM[kind]
    (tmp_path / 'last_checkpoint').write_text(f'{tmp_path}/epoch_7.pth')
    with pytest.raises(UserError, match=message) as raised, explained_faults(tmp_path):
        list(DataLoader(Deadly(harm), num_workers=1))
    assert f'the last checkpoint is {tmp_path}/epoch_7.pth' in str(raised.value)
    assert 'num_workers' in str(raised.value)
    assert '\n' not in str(raised.value)


def test_memory_of_this_process():
    for allocate in (lambda: np.empty(1 << 50, np.int64), lambda: torch.empty(1 << 50)):
        with pytest.raises(UserError, match='batch_size.*num_cp'):
            with explained_faults():
                allocate()


def test_memory_of_a_gpu():
    error = torch.OutOfMemoryError(
        'CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 23 GiB'
    )
    line = explain(error)
    assert '20.00 GiB' in line
    assert 'train_dataloader.batch_size' in line
    assert '--batch-size auto' in line
    assert 'auto' not in explain(error, less_memory='use a smaller image')  # of a test


@pytest.mark.parametrize(
    ('text', 'helps'),
    [
        (
            'NCCL error: remote process exited or network error\nncclRemoteError: A '
            'call failed possibly due to a network error or a remote process exiting',
            'another process of this run',
        ),
        ('[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0', 'space'),
        ('unable to write to file </torch_12_3_4>: No space left on device (28)', '/dev/shm'),
        ('ProcessGroupNCCL is only supported with GPUs, no GPUs found!', None),
        ('mat1 and mat2 shapes cannot be multiplied', None),
    ],
)
def test_texts_that_no_test_can_bring_about(text, helps):
    line = explain(RuntimeError(text))
    assert (helps in line) if helps else line is None


@pytest.mark.parametrize('text', ['gloo ', 'connect ', 'DataLoader worker (pid 1', ' ', '\n', '.'])
def test_a_long_error_is_read_at_once(text):
    start = time.process_time()
    line = explain(RuntimeError(text * 100_000))
    assert time.process_time() - start < 1
    assert line is None


def test_a_line_stays_short():
    line = explain(RuntimeError('NCCL error: closed ' + 'x' * 100_000))
    assert line.startswith('another process')
    assert len(line) < 500


def test_full_disk():
    with pytest.raises(UserError, match='space'), explained_faults():
        Path('/dev/full').write_text('x')


def test_other_errors_and_users_mistakes_pass():
    for error in (ValueError('x'), RuntimeError('shape mismatch'), UserError('as it was')):
        with pytest.raises(type(error), match=str(error)), explained_faults('nowhere'):
            raise error


def meet_until_the_other_dies(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    distributed.barrier()
    if rank == 1:
        kill(signal.SIGKILL)
    try:
        with explained_faults(folder):
            distributed.all_reduce(torch.ones(1000))
    except UserError as error:
        with open(f'{folder}/line', 'w') as file:
            file.write(f'{error.every_rank} {error}')


def test_a_process_whose_peer_dies_says_so_at_once(tmp_path):
    start = time.monotonic()
    context = multiprocessing.start_processes(
        meet_until_the_other_dies, (str(tmp_path),), nprocs=2, start_method='fork', join=False
    )
    context.processes[0].join(60)
    for process in context.processes:
        process.kill()
    line = (tmp_path / 'line').read_text()
    assert line.startswith('True another process')
    assert 'no checkpoint' in line
    assert time.monotonic() - start < 60
