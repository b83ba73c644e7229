"""Requests of the operating system to leave, answered by pausing a training."""

import os
import signal
import subprocess
import threading
import time
from types import FrameType
from typing import Any, NoReturn

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import distributed

# Slurm and the user of a cluster; Ctrl-C; Slurm some time before a limit (docs/train.md)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_AGAIN = 2.0  # seconds within which a second SIGTERM is the first one, also sent by a launcher


class TrainingPaused(SystemExit):
    """A training was asked to stop, wrote a checkpoint and can be resumed.

    Ends a program with status 0, after Ctrl-C with 130.
    """


class PreemptionHook(Hook):
    """Notes signals during a training and answers them when all ranks can.

    The first signal is only noted. A second SIGTERM or Ctrl-C ends the process at once.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.request = 0  # the signal that asked this process to leave
        self._time = 0.0
        self._before: dict[int, Any] = {}
        self._group: Any = None
        self._val_batches = 0  # after which an evaluation may be left

    def before_train(self, runner: Runner) -> None:
        """Take over the signals."""
        if distributed.is_available() and distributed.is_initialized() and self._group is None:
            self._group = distributed.new_group(backend='gloo')  # never waits for a GPU
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
            for number in SIGNALS:
                signal.signal(number, self._note)

    def after_train(self, runner: Runner) -> None:
        """Hand the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.request:
            self.request, self._time = number, now
            if number == signal.SIGINT and is_main_process():
                os.write(2, b'\nstopping after this step; Ctrl-C again stops at once\n')
        elif number == signal.SIGINT or (number == signal.SIGTERM and now - self._time > _AGAIN):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def agree(self, wish: int) -> int:
        """The largest of what all ranks wish, signals or less; every rank has to call it."""
        if self._group is None:
            return wish
        wishes = torch.tensor([wish])
        distributed.all_reduce(wishes, distributed.ReduceOp.MAX, group=self._group)
        return int(wishes)

    def before_val(self, runner: Runner) -> None:
        """Count the batches that every rank has; none may be left where the state is not saved."""
        batches = len(runner.val_dataloader) if runner.train_loop.saved() else 0
        self._val_batches = -self.agree(-batches)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Leave an evaluation; it is repeated when the training is resumed."""
        if batch_idx + 1 < self._val_batches:
            number = self.agree(self.request)
            if number:
                self.leave(runner, number, runner.train_loop.saved())

    def leave(self, runner: Runner, number: int, checkpoint: str) -> NoReturn:
        """End the training, to be resumed from a checkpoint; every rank has to call it.

        The number is that of the signal that asked for it, of whichever rank.

        Raises:
            TrainingPaused: Always.
        """
        runner.call_hook('after_train')  # closes what is open
        for again in (signal.SIGTERM, signal.SIGUSR1):  # sent twice, they mean the same
            signal.signal(again, signal.SIG_IGN)
        if is_main_process():
            runner.logger.warning(
                f'Paused after step {runner.iter} of {runner.max_iters} '
                f'({signal.Signals(number).name}). To go on from {checkpoint} run the same command '
                'with --resume'
            )
            if number == signal.SIGUSR1 and runner.launcher == 'slurm':
                _requeue(runner)
        raise TrainingPaused(128 + number if number == signal.SIGINT else 0)


def _requeue(runner: Runner) -> None:
    """Ask Slurm to run the job again; a SIGTERM may be a user's `scancel`, so not after that."""
    job = os.environ.get('SLURM_JOB_ID')
    if job is None:
        return
    try:
        command = ['scontrol', 'requeue', job]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, 'stderr', None) or str(error)).strip()
        runner.logger.warning(f'Slurm does not requeue job {job} ({reason}); submit it again')
    else:
        runner.logger.warning(f'Slurm will run job {job} again')


class QuietWorker:
    """Initialisation of a dataloader's worker that leaves signals to the training process.

    A signal to all processes of a job must not end the workers, or the training process could not
    finish its step. They end when the training process tells them or is gone.
    """

    def __init__(self, init: Any = None) -> None:
        self._init = init

    def __call__(self, worker_id: int) -> None:
        """Run in a new worker."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # threads inherit this
        threading.Thread(target=_heed_parent, args=(os.getppid(),), daemon=True).start()
        if self._init is not None:
            self._init(worker_id)


def _heed_parent(parent: int) -> None:
    """End this process at a SIGTERM from its parent, as at the end of a program."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
