"""Whose a work folder is: which one a run gets, and that no other run writes there meanwhile."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import all_gather_object

from mpvit.engine.distributed import by_main_process, start_processes
from mpvit.engine.run_errors import explained_faults
from mpvit.engine.run_folder import candidates, is_used, start_of
from mpvit.errors import UserError, listed
from mpvit.files.locks import folder_held

_OTHER = 'choose another --work-dir'
_TEST_LOCK = '.test.lock'  # of its own: a checkpoint may be evaluated while the training goes on


@dataclass(frozen=True)
class Place:
    """Where a training writes.

    Attributes:
        folder: The work folder.
        resume: What is resumed: a checkpoint, 'auto' for the newest of the folder, None for none.
        note: A line for the log, if the folder is not the one that was meant, or one of several.
    """

    folder: str
    resume: str | None
    note: str | None = None


@contextmanager
def owned_folder(cfg: Config, fixed: bool, resume: str | None = None) -> Iterator[Place]:
    """Give a training its work folder, and let no other write there until the block ends.

    A folder that has checkpoints is resumed in, or left alone: where nobody named it, the training
    goes to the next free one of ``NAME_2``, ``NAME_3`` and so on, and 'auto' resumes that of them
    whose ``run.json`` has the latest start. A training that torchrun or Slurm started again goes on
    where it was. All processes have to call it; the main one decides.

    Args:
        cfg: Complete config with ``work_dir``, ``env_cfg`` and ``launcher``; ``work_dir`` is set.
        fixed: The user named the folder.
        resume: As in `Place`, as far as the user said.

    Raises:
        UserError: The folder is in use, or has checkpoints and was named without ``resume``.
    """
    with ExitStack() as locks:
        with explained_faults():
            start_processes(cfg.get('launcher', 'none'), cfg.get('env_cfg') or {})
            again = set().union(*all_gather_object(_started_again()))

            def choose() -> Place:
                return _Choice(cfg, fixed, locks).place(resume, again)

            place = by_main_process(choose)
        cfg.work_dir = place.folder
        yield place


@contextmanager
def evaluation_folder(cfg: Config) -> Iterator[None]:
    """Let no other evaluation write into the work folder of a config until the block ends.

    Raises:
        UserError: One does; names its process.
    """
    with ExitStack() as locks:
        with explained_faults():
            start_processes(cfg.get('launcher', 'none'), cfg.get('env_cfg') or {})

            def hold() -> None:
                locks.enter_context(folder_held(Path(cfg.work_dir), _OTHER, _TEST_LOCK))

            by_main_process(hold)
        yield


def launched_by() -> list[str]:
    """What started the processes of this run and may start them again; all have to call it.

    Jobs of Slurm and processes of torchrun, of which each machine has one: the machine of the main
    process may be another next time.
    """
    names = {*_torchrun(), *_slurm()}
    return sorted(set().union(*all_gather_object(names)))


def _started_again() -> set[str]:
    """Those of `launched_by` that may have started this run before.

    torchrun starts one run in its life. It counts how often, but a machine that came back, or one
    that lost another, knows of none.
    """
    requeued = os.environ.get('SLURM_RESTART_COUNT', '0') not in ('', '0')
    return {*_torchrun(), *(_slurm() if requeued else ())}


def _torchrun() -> list[str]:
    run = os.environ.get('TORCHELASTIC_RUN_ID')
    return [] if run is None else [f'torchrun {run} {socket.gethostname()} {os.getppid()}']


def _slurm() -> list[str]:
    job = os.environ.get('SLURM_JOB_ID')
    return [] if job is None else [f'Slurm job {job}']


def _start(folder: Path) -> str:
    """When the training in a folder was started last, such that later is greater; '' if unknown."""
    started = start_of(folder).get('started')
    return started if isinstance(started, str) else ''


class _Choice:
    """The decision of `owned_folder`, in the main process."""

    def __init__(self, cfg: Config, fixed: bool, locks: ExitStack) -> None:
        self._wanted = Path(cfg.work_dir)
        self._config = Path(cfg.filename or '').name
        self._fixed = fixed
        self._locks = locks

    def place(self, resume: str | None, again: set[str]) -> Place:
        runs = self._runs()
        for folder in runs:
            launched = start_of(folder).get('launched_by')
            if isinstance(launched, list) and again & {str(name) for name in launched}:
                automatic = resume is None or bool(candidates(folder))
                why = 'which was started by the same launcher'
                return self._resumed(folder, 'auto' if automatic else resume, why)
        if resume is None:
            return self._new()
        if resume == 'auto':
            others = f'; left alone: {listed(runs[1:])}' if runs[1:] else ''
            why = (
                f'where this config was trained last ({_start(runs[0]) or "unknown when"}){others}'
            )
            return self._resumed(runs[0], resume, why, bool(others))
        beside = os.path.realpath(os.path.dirname(resume))
        folder = next((f for f in runs if os.path.realpath(f) == beside), self._wanted)
        return self._resumed(folder, resume, f'where {resume} is')

    def _runs(self) -> list[Path]:
        """The folder that is wanted, and those that runs of the config got in its place.

        The last that was started comes first. A copy starts with its original, which has the lower
        number.
        """
        if self._fixed:
            return [self._wanted]
        numbered = re.compile(rf'{re.escape(self._wanted.name)}_(\d+)')
        found = [
            (int(match[1]), path)
            for path in self._wanted.parent.glob('*/')
            if (match := numbered.fullmatch(path.name)) and self._is_of_config(path)
        ]
        folders = [self._wanted, *(path for _, path in sorted(found))]
        return sorted(folders, key=_start, reverse=True)  # keeps the order of equal ones

    def _is_of_config(self, folder: Path) -> bool:
        return Path(str(start_of(folder).get('config'))).name == self._config

    def _resumed(
        self, folder: Path, resume: str | None, why: str, said_anyway: bool = False
    ) -> Place:
        self._hold(folder)
        note = f'{folder} is resumed, {why}'
        return Place(str(folder), resume, note if said_anyway or folder != self._wanted else None)

    def _new(self) -> Place:
        if self._fixed:
            if not is_used(self._wanted):
                self._hold(self._wanted)
            if is_used(self._wanted):  # by now
                raise UserError(
                    f'{self._wanted} holds a training already; go on with it by --resume, or '
                    'choose another --work-dir or --name'
                )
            return Place(str(self._wanted), None)
        for number in count(1):
            name = self._wanted.name + (f'_{number}' if number > 1 else '')
            folder = self._wanted.with_name(name)
            if self._is_free(folder):
                break
        note = f'{self._wanted} holds a training and is left alone: this one goes to {folder}'
        return Place(str(folder), None, None if number == 1 else note)

    def _is_free(self, folder: Path) -> bool:
        """Whether a folder can be had; it is held if so."""
        if is_used(folder) or (folder.exists() and not folder.is_dir()):
            return False
        try:
            self._hold(folder)
        except UserError:
            if not folder.is_dir():  # not for want of a free name
                raise
            return False
        return not is_used(folder)

    def _hold(self, folder: Path) -> None:
        self._locks.enter_context(folder_held(folder, f'{_OTHER} or --name'))
