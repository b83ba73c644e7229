"""What a training writes first, when nothing refuses it any more."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mpvit.engine.ownership import launched_by
from mpvit.engine.run_folder import write_record
from mpvit.errors import UserError

_LOGS = re.compile(r'\d{8}_\d{6}')  # folders that mmengine makes for the log of a run


class BeginningHook(Hook):
    """Writes ``run.json`` after all that may refuse a training, such as `begin_run`.

    Args:
        cfg: Complete config with ``work_dir``.
    """

    priority = 'LOWEST'

    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg
        self.begun = False

    def before_train(self, runner: Runner) -> None:
        """Record the run, with what its config does not say, or not alone."""
        facts = dict(
            seed=runner.seed,
            processes=runner.world_size,
            threads=torch.get_num_threads(),
            batch_size=runner.train_dataloader.batch_size,
            accumulative_counts=getattr(runner.optim_wrapper, '_accumulative_counts', 1),
            launched_by=launched_by(),
        )
        if is_main_process():
            write_record(self._cfg, **facts)
        self.begun = True


@contextmanager
def no_trace_if_refused(folder: str | os.PathLike[str], beginning: BeginningHook) -> Iterator[None]:
    """Remove the log of a training that is refused before it began; the error passes.

    Its folder is the only thing that is written until then. Other errors leave it, since they may
    be faults in the code.
    """
    place = Path(os.path.abspath(folder))
    before = set(place.iterdir()) if place.is_dir() else set()
    try:
        yield
    except UserError:
        if is_main_process() and not beginning.begun:
            _remove_logs(place, before)
        raise


def _remove_logs(place: Path, before: set[Path]) -> None:
    """Remove the folder of the current log; not that of an evaluation that began meanwhile."""
    logger = MMLogger.get_current_instance()
    for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
        logs = Path(handler.baseFilename).parent
        if logs.parent == place and logs not in before:
            logger.removeHandler(handler)
            handler.close()
            shutil.rmtree(logs, ignore_errors=True)
    for logs in set(place.glob('*/')) - before:
        if _LOGS.fullmatch(logs.name):
            with suppress(OSError):  # it is of another run, and not empty
                logs.rmdir()
