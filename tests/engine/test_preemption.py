"""Signals: to the workers of a dataloader, and what follows a pause under Slurm."""

import os
import signal
import time
from types import SimpleNamespace

import pytest
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from mpvit.engine.preemption import PreemptionHook, QuietWorker, TrainingPaused
from mpvit.engine.runner import PortableRunner


def test_workers_outlive_signals_to_the_job_and_end_with_it():
    initialised = []
    loader = DataLoader(range(1000), num_workers=2, worker_init_fn=QuietWorker(initialised.append))
    batches = iter(loader)
    next(batches)
    workers = batches._workers
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        child = os.fork()  # somebody else than the parent
        if child == 0:
            for worker in workers:
                os.kill(worker.pid, number)
            os._exit(0)
        os.waitpid(child, 0)
    for _ in range(50):
        next(batches)
    assert all(worker.is_alive() for worker in workers)
    workers[0].terminate()  # as multiprocessing does at the end of a program
    workers[0].join(10)
    assert workers[0].exitcode == 0
    start = time.monotonic()
    del batches
    assert time.monotonic() - start < 10


def test_the_runners_dataloaders_have_such_workers():
    loader = DataLoader([1], worker_init_fn=print)
    again = PortableRunner.build_dataloader(PortableRunner.build_dataloader(loader))
    assert isinstance(again.worker_init_fn, QuietWorker)
    assert again.worker_init_fn._init is print


@pytest.mark.parametrize(
    ('number', 'launcher', 'job', 'script', 'said'),
    [
        ('SIGUSR1', 'slurm', '17', 'echo "$@" > {out}', 'Slurm will run job 17 again'),
        ('SIGUSR1', 'slurm', '17', 'echo no >&2; exit 1', 'does not requeue job 17 (no)'),
        ('SIGTERM', 'slurm', '17', 'echo "$@" > {out}', None),  # perhaps scancel
        ('SIGUSR1', 'pytorch', '17', 'echo "$@" > {out}', None),
        ('SIGUSR1', 'slurm', None, 'echo "$@" > {out}', None),
    ],
)
def test_requeue(tmp_path, monkeypatch, number, launcher, job, script, said):
    out = tmp_path / 'out.txt'
    (tmp_path / 'scontrol').write_text('#!/bin/sh\n' + script.format(out=out))
    (tmp_path / 'scontrol').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    if job:
        monkeypatch.setenv('SLURM_JOB_ID', job)
    lines, called = [], []
    runner = SimpleNamespace(
        call_hook=called.append,
        launcher=launcher,
        iter=3,
        max_iters=9,
        logger=SimpleNamespace(warning=lines.append),
    )
    with pytest.raises(TrainingPaused) as paused:
        PreemptionHook().leave(runner, getattr(signal, number), 'iter_3.pth')
    assert paused.value.code == 0
    assert called == ['after_train']
    assert lines[0].startswith(f'Paused after step 3 of 9 ({number})')
    assert lines[1:] == ([line for line in lines if said in line] if said else [])
    assert bool(lines[1:]) == bool(said)
    requeued = said is not None and 'again' in said
    assert (out.read_text() if out.exists() else '') == ('requeue 17\n' if requeued else '')


def test_signals_are_handed_back():
    before = signal.getsignal(signal.SIGTERM)
    hook = PreemptionHook()
    hook.before_train(MMLogger)
    signal.raise_signal(signal.SIGTERM)
    assert hook.agree(hook.request) == signal.SIGTERM
    hook.after_train(MMLogger)
    assert signal.getsignal(signal.SIGTERM) is before
