"""From a config and what the command line said to a run: the door that the tools go through."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.device import is_cuda_available, is_musa_available, is_npu_available
from mmengine.dist import is_main_process
from mmengine.registry import OPTIMIZERS, RUNNERS, init_default_scope
from mmengine.runner import Runner

from mpvit.config.own_data import config_on
from mpvit.config.reading import leaf_datasets
from mpvit.config.trackers import forget_visualizers, use_trackers, without_trackers
from mpvit.config.tta import tta_model, tta_pipeline
from mpvit.datasets.layout import find_test_data, find_training_data
from mpvit.engine.data_check import refuse_bad_data
from mpvit.engine.resume import candidates, is_restarted
from mpvit.engine.run_errors import explained_faults
from mpvit.engine.run_record import evaluated_data, keep_detections, software, software_note
from mpvit.errors import UserError, closest
from mpvit.files.paths import existing_checkpoint
from mpvit.models.exported import is_exported, use_exported


def train(
    config: str | os.PathLike[str],
    *,
    data: str | None = None,
    train_ann: str | None = None,
    val_ann: str | None = None,
    train_images: str | None = None,
    val_images: str | None = None,
    work_dir: str | None = None,
    amp: str | None = None,
    auto_scale_lr: str | None = None,
    resume: str | None = None,
    track: Sequence[str] = (),
    cfg_options: Sequence[str] = (),
    launcher: str = 'none',
) -> Runner:
    """Train a detector.

    Args:
        config: Config file.
        data: Folder of a COCO-format dataset to train on; None for the config's own data.
        train_ann: Annotation file to train on, instead of the one in ``data``.
        val_ann: Annotation file to validate on, instead of the one in ``data``.
        train_images: Folder of the training images, where it is not found by itself.
        val_images: Folder of the validation images, where it is not found by itself.
        work_dir: Folder for outputs; None for ``work_dirs/<config name>``.
        amp: Mixed precision, 'bf16' or 'fp16' (on a GPU only); 'auto' for fp16 on a GPU and bf16
            on a CPU; None for none.
        auto_scale_lr: How the learning rate follows the images of a step: 'linear', 'sqrt' or
            'off'; None for what the config says.
        resume: Checkpoint to resume from, 'auto' for the newest in the work folder, or None, which
            is 'auto' where torchrun or Slurm started the job again.
        track: Where else to record it, 'wandb' or 'mlflow' (docs/tracking.md).
        cfg_options: Overrides, ``key=value``.
        launcher: How the processes were started: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        The runner after training.

    Raises:
        UserError: Config, data or arguments do not fit together.
        mpvit.engine.TrainingPaused: The training was asked to stop by a signal and can be resumed.
    """
    layout = None
    if any((data, train_ann, val_ann, train_images, val_images)):
        layout = find_training_data(
            data,
            train_ann=train_ann,
            val_ann=val_ann,
            train_images=train_images,
            val_images=val_images,
        )
    cfg, notes = config_on(layout, config, cfg_options, work_dir)
    cfg.launcher = launcher
    if amp:
        enable_amp(cfg, amp)
    if auto_scale_lr:
        scaling = cfg.setdefault('auto_scale_lr', ConfigDict())
        scaling.enable = auto_scale_lr != 'off'
        if scaling.enable:
            scaling.rule = auto_scale_lr
    if is_restarted() and (resume is None or candidates(cfg.work_dir)):
        resume = 'auto'  # even if it was first resumed from a file
    if resume == 'auto':
        cfg.resume = 'auto'
    elif resume is not None:
        cfg.resume = True
        cfg.load_from = resume
    if cfg.get('load_from'):
        existing_checkpoint(cfg.load_from)
    use_trackers(cfg, track)
    return run_training(cfg, notes)


def run_training(cfg: Config, notes: Sequence[str] = ()) -> Runner:
    """Train from a finished config; everything it names is built before the first step.

    Args:
        cfg: Complete config with ``work_dir``.
        notes: Lines for the log.

    Raises:
        UserError: Data is missing, the config does not build, or something ended the run from
            outside (`mpvit.engine.run_errors`).
    """
    check_data(cfg, 'train', 'val')
    _check_optimizer(cfg)
    with explained_faults(cfg.work_dir):
        runner = build_runner(cfg, [*notes, software_note()])
        with _explained(cfg):
            _ = runner.train_loop, runner.val_loop
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        _check_length(runner)
        refuse_bad_data(runner)
        runner.train()
    return runner


def evaluate(
    config: str | os.PathLike[str],
    checkpoint: str,
    *,
    data: str | None = None,
    val_ann: str | None = None,
    val_images: str | None = None,
    work_dir: str | None = None,
    classwise: bool = False,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    dtype: str = 'fp32',
    compile: bool = False,
    fold: bool = True,
    cfg_options: Sequence[str] = (),
    launcher: str = 'none',
) -> dict[str, float]:
    """Evaluate a checkpoint on the config's test set; see `run_test` for what it writes.

    Args:
        config: Config file.
        checkpoint: Checkpoint file or URL, or an exported detector, ``.onnx`` or ``.xml``.
        data: Folder of a COCO-format dataset, of which the test split, or else validation's, is
            evaluated; None for the config's own data.
        val_ann: Annotation file to evaluate on, instead of the one in ``data``.
        val_images: Folder of its images, where it is not found by itself.
        work_dir: Folder for outputs; None for ``work_dirs/<config name>``.
        classwise: Also report each class.
        out: Pickle file for the raw detections.
        show_dir: Folder for pictures with the detections drawn in.
        tta: Average over the image and its mirror image.
        dtype: Precision, 'fp32', 'bf16' or 'fp16'; see `mpvit.inference.prepare`.
        compile: Compile the detector at the first image.
        fold: Fold batch norms into convolutions.
        cfg_options: Overrides, ``key=value``.
        launcher: How the processes were started: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        The numbers, ``coco/bbox_mAP`` and so on, in [0, 1].

    Raises:
        UserError: Config, data, checkpoint or arguments do not fit together.
    """
    existing_checkpoint(checkpoint)
    layout = None
    if any((data, val_ann, val_images)):
        layout = find_test_data(data, val_ann=val_ann, val_images=val_images)
    cfg, notes = config_on(layout, config, cfg_options, work_dir)
    cfg.launcher = launcher
    cfg.load_from = checkpoint
    cfg.resume = False
    evaluators = _evaluators(cfg, 'test')
    if classwise:
        for evaluator in evaluators:
            if evaluator.type in ('CocoBoxMetric', 'CocoMetric'):
                evaluator.classwise = True
    if out is not None:
        dump = ConfigDict(type='DumpDetResults', out_file_path=out)
        cfg.test_evaluator = [*evaluators, dump]
    if show_dir is not None:
        cfg.default_hooks.visualization.update(draw=True, test_out_dir=os.path.abspath(show_dir))
    if tta:
        _enable_tta(cfg)
    return run_test(cfg, notes, dtype=dtype, compile=compile, fold=fold)


def run_test(
    cfg: Config,
    notes: Sequence[str] = (),
    *,
    dtype: str = 'fp32',
    compile: bool = False,
    fold: bool = True,
) -> dict[str, float]:
    """Evaluate from a finished config.

    Writes ``metrics.json`` and ``detections.bbox.json`` into its work folder.

    Args:
        cfg: Complete config with ``work_dir`` and ``load_from``.
        notes: Lines for the log.
        dtype: As for `evaluate`.
        compile: As for `evaluate`.
        fold: As for `evaluate`.

    Raises:
        UserError: Data is missing, the config does not build, the checkpoint does not fit, or
            something ended the run from outside (`mpvit.engine.run_errors`).
    """
    check_data(cfg, 'test')
    keep_detections(cfg)
    checkpoint = cfg.load_from
    settings = dict(dtype=dtype, compile=compile, fold=fold)
    # averaged weights are what a checkpoint's state_dict holds; EMAHook would only swap them in
    hooks = [hook for hook in cfg.get('custom_hooks', []) if hook.type != 'EMAHook']
    if is_exported(checkpoint):
        settings = use_exported(cfg, settings)
    else:
        hooks.append(ConfigDict(type='PrepareInferenceHook', **settings))
    cfg.custom_hooks = hooks
    without_trackers(cfg)
    with explained_faults():
        runner = build_runner(cfg, notes, test=True)
        with _explained(cfg):
            _ = runner.test_loop
        metrics: dict[str, float] = runner.test()
    if is_main_process():
        record = dict(config=cfg.filename, checkpoint=checkpoint, inference=settings)
        record |= dict(data=evaluated_data(cfg), software=software(), metrics=metrics)
        path = Path(cfg.work_dir) / 'metrics.json'
        path.write_text(json.dumps(record, indent=2, default=float) + '\n')
        runner.logger.info(f'Metrics written to {path}')
    return metrics


def _named_as_test(cfg: Config) -> Config:
    """The same config under the name of which a runner writes it into the work folder.

    The config of the training lies there under its own name, and a run can be repeated from it.
    """
    path = Path(cfg.filename)
    name = str(path.with_name(f'{path.stem}_test{path.suffix}'))
    return Config(cfg._cfg_dict, cfg_text=cfg.text, filename=name)


def build_runner(cfg: Config, notes: Sequence[str] = (), *, test: bool = False) -> Runner:
    """Build the runner that a config describes.

    Args:
        cfg: Complete config with ``work_dir``.
        notes: Lines for the log.
        test: It is for a test, which leaves the config of the training in the work folder.

    Raises:
        UserError: The config names something that does not exist or gives it wrong arguments.
    """
    cfg.setdefault('runner_type', 'PortableRunner')
    forget_visualizers()
    with _explained(cfg):
        runner: Runner = RUNNERS.build(_named_as_test(cfg) if test else cfg)
    for note in notes:
        runner.logger.info(note)
    return runner


@contextmanager
def _explained(cfg: Config) -> Iterator[None]:
    """Turn errors of the registries and constructors, which are mistakes in a config, into one."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AssertionError, AttributeError) as error:
        text = error.args[0] if error.args else type(error).__name__
        raise UserError(f'config {cfg.filename} does not build: {text}') from error


def check_data(cfg: Config, *splits: str) -> None:
    """Make sure that the files of the datasets are there before anything long starts.

    Args:
        cfg: Config.
        *splits: Which to check: 'train', 'val', 'test'.

    Raises:
        UserError: A folder or annotation file is missing.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        for dataset_cfg in leaf_datasets(loader.dataset):
            with _explained(cfg):
                dataset = DATASETS.build(dict(dataset_cfg, lazy_init=True))
            _check_classes(cfg, split, dataset)
            where = f'{split}_dataloader.dataset'
            _check_path(getattr(dataset, 'data_root', ''), 'data folder', f'{where}.data_root')
            _check_path(dataset.ann_file, 'annotation file', f'{where}.ann_file')
            for kind, prefix in dataset.data_prefix.items():
                _check_path(prefix, 'image folder', f'{where}.data_prefix.{kind}')
        for evaluator in _evaluators(cfg, split):
            where = f'{split}_evaluator.ann_file'
            _check_path(evaluator.get('ann_file', ''), 'annotation file', where)


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


def _check_optimizer(cfg: Config) -> None:
    name = cfg.optim_wrapper.optimizer.type
    if isinstance(name, str) and OPTIMIZERS.get(name) is None:
        names = {known.lower(): known for known in OPTIMIZERS.module_dict}
        close = closest(name.lower(), names)
        hint = f'; did you mean {names[close]}?' if close else ''
        raise UserError(f'optim_wrapper.optimizer.type: there is no optimizer {name}{hint}')


def _check_classes(cfg: Config, split: str, dataset: BaseDataset) -> None:
    model = cfg.model.get('module', cfg.model)  # test-time augmentation wraps the detector
    expected = model.get('bbox_head', {}).get('num_classes')
    classes = dataset.metainfo.get('classes')
    if None not in (expected, classes) and len(classes) != expected:
        raise UserError(
            f'{split}_dataloader.dataset has {len(classes)} classes '
            f'({", ".join(classes[:3])}, ...), but model.bbox_head.num_classes is {expected}; '
            'make them equal'
        )


def _evaluators(cfg: Config, split: str) -> list[ConfigDict]:
    evaluators = cfg.get(f'{split}_evaluator') or []
    return evaluators if isinstance(evaluators, list) else [evaluators]


def _check_path(path: str | None, kind: str, key: str) -> None:
    if path and '://' not in path and not Path(path).exists():
        raise UserError(
            f'{kind} {path} not found; put the data there or set {key} (see docs/data.md)'
        )


def enable_amp(cfg: Config, amp: str) -> None:
    """Train in mixed precision.

    Args:
        cfg: Config, changed in place.
        amp: 'bf16', 'fp16' or 'auto', as for `train`.

    Raises:
        UserError: It is none of them, or fp16 without a GPU.
    """
    gpu = is_cuda_available() or is_npu_available() or is_musa_available()
    if amp == 'auto':
        amp = 'fp16' if gpu else 'bf16'
    if amp == 'fp16':
        if not gpu:
            raise UserError('--amp fp16 needs a GPU and none was found; use --amp bf16')
        cfg.optim_wrapper.update(type='FiniteAmpOptimWrapper', dtype='float16')
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    elif amp == 'bf16':
        for key in ('loss_scale', 'dtype'):  # of an AmpOptimWrapper
            cfg.optim_wrapper.pop(key, None)
        cfg.optim_wrapper.type = 'AutocastOptimWrapper'
    else:
        raise UserError(f'--amp {amp}: choose bf16 or fp16')


def _enable_tta(cfg: Config) -> None:
    """Evaluate every image and its mirror image; the rest of the test pipeline stays as it is."""
    cfg.model = tta_model(cfg, cfg.model)
    for dataset in leaf_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = tta_pipeline(cfg, dataset.pipeline)
