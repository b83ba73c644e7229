"""mmengine's `Runner` on whatever devices there are, also one that was interrupted."""

import logging
import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmengine.device import get_device
from mmengine.dist import all_gather_object
from mmengine.logging import MMLogger, print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mpvit.checkpoints.reading import read
from mpvit.engine.build import explained
from mpvit.engine.distributed import by_main_process, start_processes
from mpvit.engine.preemption import QuietWorker
from mpvit.engine.resumable import check_resume
from mpvit.engine.run_folder import candidates, checkpoint_run, run_of
from mpvit.errors import UserError, printable

_BEGINNINGS = ('before_train', 'before_val', 'before_test')
# that a parameter which was frozen on purpose is frozen; what mmengine itself calls a folder by
_NO_NEWS = re.compile('is skipped since its requires_grad|"FileClient"|"HardDiskBackend"')
_POWERS = {'linear': 1.0, 'sqrt': 0.5}  # of the batch, by which the learning rate grows


@RUNNERS.register_module()
class PortableRunner(Runner):
    """A `Runner` that also runs distributed without a GPU.

    On GPUs it does exactly what `Runner` does. Without any, it uses the gloo backend and ordinary
    batch norm (PyTorch has no SyncBN on the CPU), where mmengine would stop with a driver error.

    With ``resume='auto'`` a training goes on from the newest whole checkpoint in the work folder.
    Where there is none it starts as without it, ``load_from`` included.

    The config entry ``console_log_level`` sets what the terminal shows, such as ``'WARNING'``;
    the log file is not affected.
    """

    _resume: bool | str
    _load_from: str | None
    _begun = False

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Set up processes; on a machine without GPUs, over gloo.

        Raises:
            UserError: The processes were not started in a way that numbers them, or in one that
                restarts them so that they do not find each other.
        """
        start_processes(self.launcher if self.distributed else 'none', env_cfg)
        super().setup_env(env_cfg)

    def build_model(self, model: nn.Module | dict[str, Any]) -> nn.Module:
        """Build the model, whose neck has to take what its backbone gives; see `Runner`.

        Raises:
            UserError: It does not (`mpvit.models.detector.check_neck`).
        """
        built = super().build_model(model)
        if isinstance(model, dict):
            # not at the top: mmdet's models can be imported only after `mpvit.register`
            from mpvit.models.detector import check_neck

            # test-time augmentation wraps the detector
            detector, settings = getattr(built, 'module', built), model.get('module', model)
            check_neck(detector, settings, self.cfg.filename)
        return built

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Wrap the model for several processes; see `Runner.wrap_model`."""
        if next(model.parameters(), None) is None:  # an exported one
            return model.to(get_device())
        if self.distributed and get_device() == 'cpu' and model_wrapper_cfg is None:
            self.logger.info('No GPU: batch norm is not synchronised over the processes.')
            model = revert_sync_batchnorm(model)
            model_wrapper_cfg = dict(
                type='MMDistributedDataParallel',
                device_ids=None,
                broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', False),
            )
        return super().wrap_model(model_wrapper_cfg, model)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict[str, Any],
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader:
        """Build a dataloader whose workers leave signals to this process; see `Runner`."""
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        if not isinstance(loader.worker_init_fn, QuietWorker):
            loader.worker_init_fn = QuietWorker(loader.worker_init_fn)
        return loader

    def dump_config(self) -> None:
        """Leave the work folder as it is until the run begins; see `call_hook`.

        What refuses a run, such as a checkpoint of another, comes after `Runner` would write.
        """

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks; when those of a beginning have agreed, write the config; see `Runner`."""
        super().call_hook(fn_name, **kwargs)
        if fn_name in _BEGINNINGS and not self._begun:
            self._begun = True
            self._write_config()

    def _write_config(self) -> None:
        """Write the config into the work folder, as of a run that starts anew."""
        resume, load_from = self.cfg.get('resume'), self.cfg.get('load_from')
        if resume:
            self.cfg.update(resume=False, load_from=None if resume is True else load_from)
        super().dump_config()
        if resume:
            self.cfg.update(resume=resume, load_from=load_from)

    def load_or_resume(self) -> None:
        """Load or resume from a checkpoint; see `Runner.load_or_resume`.

        Raises:
            UserError: It cannot be read, or not be resumed.
        """
        automatic = self._resume == 'auto' or bool(self._resume and self._load_from is None)
        # torchrun counts the restarts of each machine: one that came back knows of none
        automatic = any(all_gather_object(automatic))
        if automatic and not self._has_loaded:
            found = newest_checkpoint(self.work_dir, self)
            self._resume = found is not None
            if found is None:
                self.logger.info(f'No checkpoint to resume from in {self.work_dir}: starting at 0')
            else:
                self._load_from = str(found)
                self.logger.info(f'Resuming from {found}')
        what = f'checkpoint {self._load_from} (damaged, or of another version)'
        with explained(self.cfg, 'resume', what) if self._resume else nullcontext():
            super().load_or_resume()

    def scale_lr(
        self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None
    ) -> None:
        """Scale the learning rate with the images of a step, and say what it is in one line.

        A step of ``accumulative_counts`` batches counts all of their images, unlike in mmengine.

        Args:
            optim_wrapper: Whose learning rates are scaled.
            auto_scale_lr: With ``enable``, ``base_batch_size`` and ``rule``, for which see
                `lr_factor`; 'linear' where it is left out.

        Raises:
            UserError: The rule is unknown, or ``base_batch_size`` is missing or not positive.
        """
        loader = self._train_dataloader
        batch = loader.batch_size if isinstance(loader, DataLoader) else loader['batch_size']
        counts = getattr(optim_wrapper, '_accumulative_counts', 1)
        images = batch * self.world_size * counts
        step = f'{images} images a step ({batch} x {self.world_size} processes x {counts} batches)'
        lr = optim_wrapper.optimizer.defaults['lr']
        settings = auto_scale_lr or {}
        if not settings.get('enable'):
            self.logger.info(f'Learning rate {lr:.3g}, not scaled: {step}, auto_scale_lr is off.')
            return
        if 'base_batch_size' not in settings:
            raise UserError(
                'auto_scale_lr.enable needs base_batch_size, the images a step that '
                'the learning rate is meant for; set it or use --auto-scale-lr off'
            )
        base, rule = settings['base_batch_size'], settings.get('rule', 'linear')
        factor = lr_factor(images, base, rule)
        for group in optim_wrapper.optimizer.param_groups:
            group['lr'] *= factor
        self.logger.info(
            f'Learning rate {lr * factor:.3g} = {lr:.3g} x {factor:.3g}: {step} where the recipe '
            f'has {base}, rule {rule!r}.'
        )

    def build_logger(
        self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any
    ) -> MMLogger:
        """Build the logger; see `Runner.build_logger`."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        logger.addFilter(_is_news)
        logger.addFilter(_made_printable)
        console_level = self.cfg.get('console_log_level')
        for handler in logger.handlers:
            if console_level and not isinstance(handler, logging.FileHandler):
                handler.setLevel(max(handler.level, logging.getLevelName(console_level)))
        return logger


def _is_news(record: logging.LogRecord) -> bool:
    """Whether it is not one of mmengine's warnings about what is meant to be so."""
    return record.levelno != logging.WARNING or not _NO_NEWS.search(record.getMessage())


def _made_printable(record: logging.LogRecord) -> bool:
    """Take out of a message what a terminal would obey: names in it may come from strangers."""
    lines = record.getMessage().split('\n')
    record.msg, record.args = '\n'.join(printable(line.expandtabs()) for line in lines), ()
    return True


def lr_factor(images: int, base: float, rule: str) -> float:
    """What the learning rate of a recipe is multiplied with at another batch size.

    'linear' (Goyal et al. 2017, 'Accurate, Large Minibatch SGD') keeps the update per image the
    same, as long as the gradient itself decides about the size of a step, as in SGD; mmdet scales
    so. Adam and AdamW divide by the gradient's spread, and then the square root keeps the noise of
    the updates the same ('sqrt'; Malladi et al. 2022, 'On the SDEs and Scaling Rules for Adaptive
    Gradient Algorithms'; proposed by Krizhevsky 2014, 'One weird trick for parallelizing
    convolutional neural networks').

    Args:
        images: Images of a step over all processes and accumulated batches, at least 1.
        base: Images of a step for which the recipe's learning rate is meant, above 0.
        rule: 'linear' or 'sqrt'.

    Raises:
        UserError: There is no such rule, or ``base`` is not positive.
    """
    if rule not in _POWERS:
        raise UserError(f'auto_scale_lr.rule {rule!r} is unknown; choose {" or ".join(_POWERS)}')
    if base <= 0:
        raise UserError(f'auto_scale_lr.base_batch_size is {base}; it must be positive')
    return float((images / base) ** _POWERS[rule])


def newest_checkpoint(
    work_dir: str | os.PathLike[str], runner: Runner | None = None
) -> Path | None:
    """The newest whole checkpoint of the run of a work folder, if the folder has any checkpoints.

    Those that are damaged, or of a run that was there before, are named in a warning. The main
    process looks, and all ranks get its answer. With the runner that is going to resume, those
    whose state cannot be right are damaged too (`mpvit.engine.resumable`).

    Raises:
        UserError: There are checkpoints, and all are such.
    """
    return by_main_process(lambda: _newest(Path(work_dir), runner))


def _newest(work_dir: Path, runner: Runner | None) -> Path | None:
    paths, own = candidates(work_dir), run_of(work_dir)
    for path in paths:
        try:
            content = read(path)
            if own is not None and checkpoint_run(content) != own:
                raise UserError(f'{path} is of another run than {work_dir}')
            if runner is not None:
                check_resume(runner, content, path)
        except UserError as error:
            print_log(f'Not resumed from: {error}', logger='current', level=logging.WARNING)
        else:
            return path
    if paths:
        raise UserError(
            f'cannot resume: of the {len(paths)} checkpoints in {work_dir} none is whole and of '
            'the run that was last started there; name one with --resume FILE and another '
            '--work-dir, or start anew in another --work-dir'
        )
    return None
