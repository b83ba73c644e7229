"""What trainings and tests share: a runner from a config, whose data are there."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from mpvit.config.reading import evaluators, leaf_datasets
from mpvit.config.stored import config_name
from mpvit.engine.run_errors import explain
from mpvit.errors import UserError
from mpvit.files.paths import is_address

# What constructors raise at arguments that they cannot take; RuntimeError: torch's.
_MISTAKES = (
    LookupError,
    TypeError,
    ValueError,
    AssertionError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)


def build_runner(cfg: Config, notes: Sequence[str] = ()) -> Runner:
    """Build the runner that a complete config describes; the notes are lines for its log.

    Raises:
        UserError: The config names something that does not exist or gives it wrong arguments.
    """
    cfg.setdefault('runner_type', 'PortableRunner')
    for kind in (Visualizer, *Visualizer.__subclasses__()):
        # mmengine keeps them by name, and one that is there goes on writing into its run's folder
        kind._instance_dict.clear()
    if cfg.get('randomness', {}).get('deterministic'):
        # without it torch refuses products of matrices on a GPU; read at the first of them
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    with explained(cfg):
        runner: Runner = RUNNERS.build(cfg)
    for note in notes:
        runner.logger.info(note)
    runner.notes = tuple(notes)  # for the screen too
    return runner


def use_device(name: str) -> None:
    """Let a training see one device only, before CUDA looks for them.

    Raises:
        UserError: It is neither the CPU nor a GPU by number.
    """
    kind, _, number = name.partition(':')
    if kind == 'cpu' and not number:
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    elif kind == 'cuda' and (number or '0').isdigit():
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        places = visible.split(',') if visible else None
        index = int(number or 0)
        if places is not None and index >= len(places):
            raise UserError(f'--device {name}: CUDA_VISIBLE_DEVICES shows {len(places)} devices')
        os.environ['CUDA_VISIBLE_DEVICES'] = places[index] if places else str(index)
        if not torch.cuda.is_available():
            raise UserError(f'--device {name}: there is no such GPU on this machine')
    else:
        raise UserError(f'--device {name}: choose cpu, cuda or cuda:N')


@contextmanager
def explained(cfg: Config, verb: str = 'build', what: str | None = None) -> Iterator[None]:
    """Turn errors of registries, constructors and layers, which are mistakes in a config, into one.

    Args:
        cfg: The config.
        verb: What is done with it, 'build' or 'run'.
        what: What the mistakes are in, if not the config.

    Raises:
        UserError: It cannot be done. Errors of memory and of other processes pass.
    """
    try:
        yield
    except _MISTAKES as error:
        if isinstance(error, RuntimeError) and explain(error):
            raise  # memory, or another process
        text = error.args[0] if error.args else type(error).__name__
        # what runs may also fail by a fault in the code, of which the place is wanted
        place = '; MPVIT_DEBUG=1 shows where' if verb == 'run' else ''
        what = what or config_name(cfg)
        raise UserError(f'{what} does not {verb}: {text}{place}') from error


def check_data(cfg: Config, *splits: str) -> None:
    """Make sure that the files of splits' datasets are there before anything long starts.

    Raises:
        UserError: A folder or annotation file is missing, or classes are not as many as the head's.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        for dataset_cfg in leaf_datasets(loader.dataset):
            with explained(cfg):
                dataset = DATASETS.build(dict(dataset_cfg, lazy_init=True))
            _check_classes(cfg, split, dataset)
            where = f'{split}_dataloader.dataset'
            _check_path(getattr(dataset, 'data_root', ''), 'data folder', f'{where}.data_root')
            _check_path(dataset.ann_file, 'annotation file', f'{where}.ann_file')
            for kind, prefix in dataset.data_prefix.items():
                _check_path(prefix, 'image folder', f'{where}.data_prefix.{kind}')
        for evaluator in evaluators(cfg, split):
            where = f'{split}_evaluator.ann_file'
            _check_path(evaluator.get('ann_file', ''), 'annotation file', where)


def _check_classes(cfg: Config, split: str, dataset: BaseDataset) -> None:
    model = cfg.model.get('module', cfg.model)  # test-time augmentation wraps the detector
    classes = dataset.metainfo.get('classes')
    for part in ('bbox_head', 'head', 'data_preprocessor'):  # the last two: of a classifier
        expected = model.get(part, {}).get('num_classes')
        if None not in (expected, classes) and len(classes) != expected:
            raise UserError(
                f'{split}_dataloader.dataset has {len(classes)} classes '
                f'({", ".join(classes[:3])}, ...), but model.{part}.num_classes is {expected}; '
                'make them equal'
            )


def _check_path(path: str | None, kind: str, key: str) -> None:
    if path and not is_address(path) and not Path(path).exists():
        raise UserError(
            f'{kind} {path} not found; put the data there or set {key} (see docs/data.md)'
        )
