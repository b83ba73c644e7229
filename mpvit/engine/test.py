"""An evaluation, from a config and a checkpoint to numbers and detections in the work folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process

from mpvit.config.own_data import config_on
from mpvit.config.presets import enable_tta, without_trackers
from mpvit.config.reading import evaluators, is_of_classifier
from mpvit.config.stored import config_name, renamed
from mpvit.datasets.data_files import DataFiles
from mpvit.engine.build import build_runner, check_data, explained
from mpvit.engine.ownership import evaluation_folder
from mpvit.engine.run_errors import explained_faults, traceback_in_log
from mpvit.engine.run_folder import data_of, write_metrics
from mpvit.errors import UserError
from mpvit.files.paths import existing_checkpoint
from mpvit.files.writing import check_writable
from mpvit.models.exported import use_exported
from mpvit.models.runtimes import is_exported

_OF_BOXES = ('CocoBoxMetric', 'CocoMetric')


def evaluate(
    config: str | os.PathLike[str],
    checkpoint: str,
    *,
    data: DataFiles | None = None,
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

    What classifiers have no use for is refused: ``classwise``, ``out``, ``show_dir``, ``tta``.

    Args:
        config: Config file.
        checkpoint: Checkpoint file or URL, or an exported detector, ``.onnx`` or ``.xml``.
        data: Files of a dataset, of which the test split, or else validation's, is evaluated;
            None, or nothing named, for those of the config.
        work_dir: Folder for outputs; None for ``work_dirs/<config name>``.
        classwise: Also report each class.
        out: Pickle file for the raw detections.
        show_dir: Folder for pictures with the detections drawn in.
        tta: Average over the image and its mirror image.
        dtype: As for `run_test`, like the two that follow.
        compile: Compile the detector at the first image.
        fold: Fold batch norms into convolutions.
        cfg_options: Overrides, ``key=value``.
        launcher: How the processes were started: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        The numbers: ``coco/bbox_mAP`` and so on, in [0, 1]; ``accuracy/top1``, in percent.

    Raises:
        UserError: Config, data, checkpoint or arguments do not fit together.
    """
    existing_checkpoint(checkpoint)
    cfg, notes = config_on(data.for_testing() if data else None, config, cfg_options, work_dir)
    with explained(cfg, 'run'):
        cfg.launcher = launcher
        cfg.load_from = checkpoint
        cfg.resume = False
        found = evaluators(cfg, 'test')
        if is_of_classifier(cfg):
            _refuse_for_classifier(cfg, classwise=classwise, out=out, show_dir=show_dir, tta=tta)
        if classwise:
            for evaluator in found:
                if evaluator.type in _OF_BOXES:
                    evaluator.classwise = True
        if out is not None:
            dump = ConfigDict(type='DumpDetResults', out_file_path=out)
            cfg.test_evaluator = [*found, dump]
        if show_dir is not None:
            cfg.default_hooks.visualization.update(
                draw=True, test_out_dir=os.path.abspath(show_dir)
            )
        if tta:
            enable_tta(cfg)
        return run_test(cfg, notes, dtype=dtype, compile=compile, fold=fold)


def _refuse_for_classifier(cfg: Config, **flags: Any) -> None:
    given = [name.replace('_', '-') for name, value in flags.items() if value]
    if given:
        raise UserError(f'--{given[0]} is for detectors; {config_name(cfg)} is of a classifier')


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
        dtype: 'fp32', 'bf16' or 'fp16'; see `mpvit.engine.hooks.prepare_inference.prepare`.
        compile: Compile the detector at the first image.
        fold: Fold batch norms into convolutions.

    Raises:
        UserError: Data is missing, the config does not build, the checkpoint does not fit, or
            something ended the run from outside (`mpvit.engine.run_errors`).
    """
    check_writable(cfg.work_dir, folder=True)
    check_data(cfg, 'test')
    keep_detections(cfg)
    settings = dict(dtype=dtype, compile=compile, fold=fold)
    # averaged weights are what a checkpoint's state_dict holds; EMAHook would only swap them in
    hooks = [hook for hook in cfg.get('custom_hooks', []) if hook.type != 'EMAHook']
    checkpoint = cfg.load_from
    if is_exported(checkpoint):
        settings = use_exported(cfg, settings)
    else:
        hooks.append(ConfigDict(type='PrepareInferenceHook', **settings))
    cfg.custom_hooks = hooks
    without_trackers(cfg)
    with evaluation_folder(cfg), explained_faults(outputs=cfg.work_dir):
        runner = build_runner(_named_as_test(cfg), notes)
        with explained(cfg):
            _ = runner.test_loop
        with explained(cfg, 'run'), traceback_in_log(runner.logger):
            metrics: dict[str, float] = runner.test()
        if is_main_process():
            path = write_metrics(cfg, checkpoint, metrics, evaluated_data(cfg), settings)
            runner.logger.info(f'Metrics written to {path}')
    return metrics


def keep_detections(cfg: Config) -> None:
    """Have the detections written to ``detections.bbox.json`` in the work folder of a config.

    An evaluator that writes elsewhere stays so.
    """
    for evaluator in _box_evaluators(cfg):
        if not evaluator.get('outfile_prefix'):
            evaluator.outfile_prefix = os.path.join(cfg.work_dir, 'detections')


def evaluated_data(cfg: Config) -> dict[str, Any]:
    """Where the data and the detections of an evaluation are, with absolute paths."""
    data = data_of(cfg, 'test')
    for evaluator in _box_evaluators(cfg):
        data['detections'] = f'{evaluator.outfile_prefix}.bbox.json'
    paths = ('annotations', 'images', 'detections')
    return data | {key: os.path.abspath(data[key]) for key in paths if key in data}


def _box_evaluators(cfg: Config) -> list[ConfigDict]:
    """The first evaluator of boxes, if there is one."""
    return [e for e in evaluators(cfg, 'test') if e.get('type') in _OF_BOXES][:1]


def _named_as_test(cfg: Config) -> Config:
    """The same config under the name of which a runner writes it into the work folder.

    The config of the training lies there under its own name, and a run can be repeated from it.
    """
    path = Path(cfg.filename)
    name = str(path.with_name(f'{path.stem}_test{path.suffix}'))
    return renamed(cfg, name)
