"""A training, from a config and what the command line said to its last step."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner

from mpvit.config.finetune import finetune
from mpvit.config.flags import TrainingFlags
from mpvit.config.names import find_config, is_model_file
from mpvit.config.own_data import config_on
from mpvit.config.presets import enable_amp, use_trackers
from mpvit.config.reading import require_model
from mpvit.datasets.annotations import forget
from mpvit.datasets.data_files import DataFiles
from mpvit.datasets.layout import Layout
from mpvit.engine.batch_size import choose_batch
from mpvit.engine.beginning import BeginningHook, no_trace_if_refused
from mpvit.engine.build import build_runner, check_data, explained, use_device
from mpvit.engine.data_check import log_data, refuse_bad_data
from mpvit.engine.hooks import detector_of
from mpvit.engine.initial_weights import (
    initial_weights,
    leave_to_checkpoint,
    set_initial_weights,
    whole_model,
)
from mpvit.engine.outlook import warn_of_outlook
from mpvit.engine.ownership import owned_folder
from mpvit.engine.run_errors import explained_faults, traceback_in_log
from mpvit.engine.run_folder import candidates, start_of
from mpvit.errors import UserError, closest
from mpvit.files.paths import existing_checkpoint, newest_config
from mpvit.files.writing import check_writable


def train(
    config: str | os.PathLike[str],
    *,
    data: DataFiles | None = None,
    work_dir: str | None = None,
    preset: str | None = None,
    amp: str | None = None,
    auto_scale_lr: str | None = None,
    resume: str | None = None,
    pretrained: str | None = None,
    from_scratch: bool = False,
    load_from: str | None = None,
    track: Sequence[str] = (),
    flags: TrainingFlags | None = None,
    device: str | None = None,
    cfg_options: Sequence[str] = (),
    launcher: str = 'none',
) -> Runner:
    """Train a detector.

    Args:
        config: Config file.
        data: Files of a dataset to train on; None, or nothing named, for those of the config.
        work_dir: Folder for outputs; None for ``work_dirs/<config name>``, and to fine-tune for
            ``work_dirs/<config name>_finetune``, with a number where that has a training already.
        preset: 'finetune' for the recipe of `mpvit.config.finetune`, which chooses what the
            ``flags`` leave open; or None.
        amp: Mixed precision, see `enable_amp`; None for none.
        auto_scale_lr: How the learning rate follows the images of a step: 'linear', 'sqrt' or
            'off'; None for what the config says.
        resume: Checkpoint to resume from, 'auto' for the newest in the work folder, or None, which
            is 'auto' where torchrun or Slurm started this training again.
        pretrained: Weights for the backbone in place of the config's: a file, a URL or
            ``mpvit://NAME`` of published ones.
        from_scratch: Start the backbone from random numbers.
        load_from: Checkpoint of a detector to start from: a file or URL.
        track: Where else to record it, 'wandb' or 'mlflow' (docs/tracking.md).
        flags: Length, batch, image size and so on in place of the config's.
        device: 'cpu', 'cuda' or 'cuda:N'; None for a GPU where there is one.
        cfg_options: Overrides, ``key=value``.
        launcher: How the processes were started: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        The runner after training.

    Raises:
        UserError: Config, data or arguments do not fit together, or the work folder has a training
            or is in use.
        mpvit.engine.preemption.TrainingPaused: The training was asked to stop by a signal and can
            be resumed.
    """
    if device is not None:
        use_device(device)
    layout = data.for_training() if data else None
    cfg, notes = _config(config, layout, cfg_options, work_dir, preset, flags)
    require_model(cfg)
    cfg.launcher = launcher
    with explained(cfg, 'run'):
        if amp:
            enable_amp(cfg, amp)
        if auto_scale_lr:
            scaling = cfg.setdefault('auto_scale_lr', ConfigDict())
            scaling.enable = auto_scale_lr != 'off'
            if scaling.enable:
                scaling.rule = auto_scale_lr
        if load_from is not None:
            cfg.load_from = load_from
        if resume is None and cfg.get('resume'):
            resume = 'auto' if cfg.resume == 'auto' else cfg.get('load_from') or 'auto'
        with owned_folder(cfg, work_dir is not None, resume) as place:
            if place.resume == 'auto':
                cfg.resume = 'auto'
            elif place.resume is not None:
                cfg.resume = True
                cfg.load_from = place.resume
            if cfg.get('load_from'):
                existing_checkpoint(cfg.load_from)
            warning = set_initial_weights(cfg, pretrained, from_scratch)
            continued = bool(cfg.get('resume') and candidates(cfg.work_dir))
            use_trackers(cfg, track, continued)
            auto_batch = flags is not None and flags.batch_size == 'auto'
            notes += [place.note] if place.note else []
            return run_training(cfg, notes, warning, auto_batch)


def _config(
    config: str | os.PathLike[str],
    layout: Layout | None,
    options: Sequence[str],
    work_dir: str | None,
    preset: str | None,
    flags: TrainingFlags | None,
) -> tuple[Config, list[str]]:
    """The config, changed by data, recipe, flags and overrides in this order; lines for the log."""
    recipe: list[str] = []

    def edit(cfg: Config) -> None:
        if preset == 'finetune':
            recipe.append(finetune(cfg, flags))
        elif flags is not None:
            flags.apply(cfg)

    if work_dir is None and (preset or is_model_file(config)):
        # a checkpoint's config is of another run, whose folder stays as it is
        path = find_config(config)
        beside = newest_config(path.parent) if is_model_file(path) else None
        work_dir = f'work_dirs/{(beside or path).stem}_{preset or "own"}'
    cfg, notes = config_on(layout, config, options, work_dir, edit)
    return cfg, [*notes, *recipe]


def run_training(
    cfg: Config,
    notes: Sequence[str] = (),
    warning: str | None = None,
    auto_batch: bool = False,
) -> Runner:
    """Train from a finished config; everything it names is built before the first step.

    Writes ``run.json`` into the work folder (`mpvit.engine.run_folder.write_record`), which the
    caller owns (`mpvit.engine.ownership.owned_folder`). A training that is refused before its first
    step leaves the folder as it was.

    Args:
        cfg: Complete config with ``work_dir``.
        notes: Lines for the log.
        warning: Another one, as a warning.
        auto_batch: Choose the batch size (`mpvit.engine.batch_size.choose_batch`).

    Raises:
        UserError: Data or weights are missing, the config does not build, or something ended the
            run from outside (`mpvit.engine.run_errors`).
    """
    check_writable(cfg.work_dir, folder=True)
    source = _check_files(cfg)
    _check_optimizer(cfg)
    _keep_threads(cfg)
    beginning = BeginningHook(cfg)
    with no_trace_if_refused(cfg.work_dir, beginning), explained_faults(cfg.work_dir):
        runner = build_runner(cfg, [*notes, source] if source else notes)
        if warning:
            runner.logger.warning(warning)
        refuse_bad_data(runner)
        if whole_model(cfg):
            leave_to_checkpoint(detector_of(runner))
        if auto_batch:
            choose_batch(runner)
        with explained(cfg):
            _ = runner.train_loop, runner.val_loop
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
            _check_length(runner)
            log_data(runner)
            warn_of_outlook(runner)
        forget()
        runner.register_hook(beginning)
        with explained(cfg, 'run'), traceback_in_log(runner.logger):
            runner.train()
    return runner


def _keep_threads(cfg: Config) -> None:
    """Go on with as many threads as a resumed training had: their number changes the last bits."""
    record = start_of(Path(cfg.work_dir)) if cfg.get('resume') else {}
    threads = record.get('threads')
    if isinstance(threads, int) and threads > 0 and 'OMP_NUM_THREADS' not in os.environ:
        torch.set_num_threads(threads)


def _check_files(cfg: Config) -> str | None:
    """Make sure that data and weights are there; the line that says where those come from.

    Raises:
        UserError: Something is missing; all of it is named at once.
    """
    source, problems = None, []
    try:
        check_data(cfg, 'train', 'val')
    except UserError as error:
        problems.append(str(error))
    try:
        source = initial_weights(cfg)
    except UserError as error:
        problems.append(str(error))
    if problems:
        raise UserError(*problems)
    return source


def _check_optimizer(cfg: Config) -> None:
    name = cfg.optim_wrapper.optimizer.type
    if isinstance(name, str) and OPTIMIZERS.get(name) is None:
        names = {known.lower(): known for known in OPTIMIZERS.module_dict}
        close = closest(name.lower(), names)
        hint = f'; did you mean {names[close]}?' if close else ''
        raise UserError(f'optim_wrapper.optimizer.type: there is no optimizer {name}{hint}')


def _check_length(runner: Runner) -> None:
    loader = runner.train_dataloader
    if len(loader) == 0:
        raise UserError(
            f'train_dataloader gives no batch: {len(loader.dataset)} images do not fill one of '
            f'{loader.batch_size} on each of {runner.world_size} process(es), and drop_last leaves '
            'out the rest; lower train_dataloader.batch_size'
        )
    if runner.max_iters <= 0:
        raise UserError('train_cfg asks for no training step; set max_epochs to 1 or more')
