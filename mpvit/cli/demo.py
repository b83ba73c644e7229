"""Train, evaluate and draw on the toy dataset."""

import argparse
import time
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from mpvit.cli import _arguments as types
from mpvit.cli.data import print_counts
from mpvit.files.paths import output_folder

CONFIG = 'mpvit_t_dino_toy'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    types.option(parser, '--config', types.config, 'CONFIG', 'config file or name', CONFIG)
    types.option(parser, '--work-dir', output_folder, 'DIR', 'folder for outputs')


def run(config: str, work_dir: str | None) -> None:
    """Draw the dataset, train on it, evaluate the last checkpoint and draw what it finds."""
    warnings.simplefilter('ignore')  # deprecations inside the libraries, nothing to act on
    import mpvit.register  # noqa: F401
    from mpvit.config.reading import load_config
    from mpvit.engine.build import check_data
    from mpvit.engine.ownership import owned_folder
    from mpvit.engine.run_folder import candidates
    from mpvit.engine.test import run_test
    from mpvit.engine.train import run_training
    from mpvit.evaluation.coco_metric import format_table
    from mpvit.visualization.curves import plot_curves
    from mpvit.visualization.error_pictures import contact_sheet
    from mpvit.visualization.report import write_report

    cfg = load_config(config, work_dir=work_dir)
    cfg.console_log_level = 'ERROR'  # no warnings about so short a training
    check_data(cfg, 'train', 'val')  # which draws the dataset
    root = Path(cfg.data_root)
    print_counts(root)

    start = time.time()
    with owned_folder(cfg, work_dir is not None) as place:
        if place.note:
            print(place.note)
        with redirect_stdout(StringIO()):  # pycocotools' and mmengine's notes on loading
            runner = run_training(cfg)
    print(f'Trained {runner.max_iters} steps in {time.time() - start:.0f} s.\n')

    work = Path(cfg.work_dir)
    cfg.load_from = str(candidates(work)[0])
    with redirect_stdout(StringIO()):
        metrics = run_test(cfg)
    print(format_table(metrics))

    curves = plot_curves(work, work / 'curves.png')
    sheet = contact_sheet(
        Path(cfg.test_evaluator.ann_file),
        work / 'detections.bbox.json',
        root / 'val2017',
        work / 'contact_sheet.png',
    )
    report, _ = write_report(work)
    print(f"""
Held-out box AP {metrics['coco/bbox_mAP']:.3f}. Everything is in {cfg.work_dir}:
  report      {report}
  pictures    {curves}, {sheet}
  numbers     {work / 'metrics.json'}
  checkpoint  {cfg.load_from}
  log         {Path(runner.log_dir) / (runner.timestamp + '.log')}""")
