"""The quick check of the data that every training starts with."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import Runner

from mpvit.config.reading import leaf_datasets
from mpvit.datasets.check import Problem, Split, check_dataset, refuse_fatal, settings_of
from mpvit.errors import UserError

_SHOWN = 3  # kinds of problems named in the log


def refuse_bad_data(runner: Runner) -> None:
    """Check the annotations and a sample of the images before the first step.

    The main process looks, and all ranks get its answer. Data that is not in local COCO files is
    left alone, as is a training whose config says ``quick_check=False``.

    Raises:
        UserError: The data would crash the training or spoil it; one line for each kind of problem.
    """
    if not runner.cfg.get('quick_check', True):
        return
    answer: list[str | None] = [None]
    if is_main_process():
        try:
            _check(runner)
        except UserError as error:
            answer = [str(error)]
    broadcast_object_list(answer)
    if answer[0]:
        raise UserError(*answer[0].split('\n'))


def _check(runner: Runner) -> None:
    train, settings = coco_files(runner.cfg, 'train')
    if train is None:
        return
    val, _ = coco_files(runner.cfg, 'val')
    problems = check_dataset(train, val, quick=True, **settings)
    refuse_fatal(problems)
    found = [problem for problem in problems if problem.severity in ('error', 'warning')]
    if found:
        runner.logger.warning(_summary(found))


def coco_files(cfg: Config, split: str) -> tuple[Split | None, dict[str, Any]]:
    """The files of a dataset and the settings of its check, if it is one in local COCO files."""
    loader = cfg.get(f'{split}_dataloader')
    leaves = list(leaf_datasets(loader.dataset)) if loader is not None else []
    if len(leaves) != 1 or leaves[0].get('indices') is not None:
        return None, {}
    dataset = DATASETS.build(dict(leaves[0], lazy_init=True, pipeline=[]))
    images = dataset.data_prefix.get('img')
    places = (dataset.ann_file, images)
    if not all(place and '://' not in place for place in places) or not hasattr(dataset, 'COCOAPI'):
        return None, {}
    settings: Mapping[str, Any] = settings_of(leaves[0])
    classes = dataset.metainfo.get('classes')
    return Split(dataset.ann_file, images), dict(settings, classes=classes and tuple(classes))


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
