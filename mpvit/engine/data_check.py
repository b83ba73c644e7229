"""The quick check of the data that every training starts with."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.runner import Runner

from mpvit.config.reading import leaf_datasets
from mpvit.datasets.annotations import read_annotations
from mpvit.datasets.check import (
    Problem,
    Split,
    check_dataset,
    counts_in,
    refuse_fatal,
    settings_of,
)
from mpvit.engine.distributed import by_main_process
from mpvit.files.paths import is_address

_SHOWN = 3  # kinds of problems named in the log


def refuse_bad_data(runner: Runner) -> None:
    """Check the annotations and a sample of the images before the datasets are built.

    Building stops at the first fault, and a fault of the data looks there like one of the config.
    The main process looks, and all ranks get its answer. Data that is not in local COCO files is
    left alone, as is a training whose config says ``quick_check=False``.

    Raises:
        UserError: The data would crash the training or spoil it; one line for each kind of problem.
    """
    if runner.cfg.get('quick_check', True):
        by_main_process(lambda: _check(runner))


def log_data(runner: Runner) -> None:
    """Say how many images and boxes of each annotation file the training takes."""
    pending = [runner.train_dataloader.dataset]
    while pending:
        dataset = pending.pop(0)
        pending += getattr(dataset, 'datasets', None) or filter(
            None, [getattr(dataset, 'dataset', None)]
        )
        boxes = getattr(dataset, 'box_count', None)
        if boxes is None or getattr(dataset, '_indices', None) is not None:
            continue
        table = read_annotations(
            dataset.ann_file, strict=False, backend_args=dataset.backend_args, unlabelled=True
        )
        images, annotations, _ = counts_in(table)
        runner.logger.info(
            f'Training data: {len(dataset):,} of {images:,} images and {boxes:,} of '
            f'{annotations:,} boxes of {dataset.ann_file}'
        )


def _check(runner: Runner) -> None:
    train, val = (list(_local_files(runner.cfg, split)) for split in ('train', 'val'))
    alone = len(train) == len(val) == 1
    problems = [
        problem
        for split, settings in train
        for problem in check_dataset(split, val[0][0] if alone else None, quick=True, **settings)
    ]
    refuse_fatal(problems)
    found = [problem for problem in problems if problem.severity in ('error', 'warning')]
    if found:
        runner.logger.warning(_summary(found))


def coco_files(cfg: Config, split: str) -> tuple[Split | None, dict[str, Any]]:
    """The files of a dataset and the settings of its check, if it is one in local COCO files."""
    loader = cfg.get(f'{split}_dataloader')
    leaves = list(leaf_datasets(loader.dataset)) if loader is not None else []
    found = list(_local_files(cfg, split))
    return found[0] if len(leaves) == len(found) == 1 else (None, {})


def _local_files(cfg: Config, split: str) -> Iterator[tuple[Split, dict[str, Any]]]:
    """The files and the settings of the check of each dataset that is in local COCO files."""
    loader = cfg.get(f'{split}_dataloader')
    for leaf in leaf_datasets(loader.dataset) if loader is not None else ():
        if leaf.get('indices') is not None:
            continue
        dataset = DATASETS.build(dict(leaf, lazy_init=True, pipeline=[]))
        if not hasattr(dataset, 'COCOAPI'):
            continue
        places = (dataset.ann_file, dataset.data_prefix.get('img'))
        if all(place and not is_address(place) for place in places):
            settings: Mapping[str, Any] = settings_of(leaf)
            classes = dataset.metainfo.get('classes')
            yield Split(*places), dict(settings, classes=classes and tuple(classes))


def _summary(problems: list[Problem]) -> str:
    """What was found in one line, each kind once, errors first."""
    first: dict[str, Problem] = {}
    for problem in sorted(problems, key=lambda p: p.severity):  # 'error' before 'warning'
        first.setdefault(problem.code, problem)
    count = Counter(problem.code for problem in problems)
    parts = []
    for code, problem in list(first.items())[:_SHOWN]:
        others = f' (and {count[code] - 1} more like it)' if count[code] > 1 else ''
        parts.append(f'{problem.message}{others} [{code}]')
    rest = len(first) - _SHOWN
    kinds = f'; {rest} more kinds of problems' if rest > 0 else ''
    return f'Quick check of the data: {"; ".join(parts)}{kinds}. Run mpvit check_dataset for all'
