"""What a config says of the images that its detector is evaluated on, and of their classes."""

import copy
from collections.abc import Sequence
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from mpvit.config.reading import leaf_datasets
from mpvit.config.tta import tta_pipeline
from mpvit.errors import UserError


def evaluated_dataset(cfg: Config) -> Any:
    """Config of the dataset of the test, out of its wrappers, or else of the validation.

    Args:
        cfg: Complete config.

    Raises:
        UserError: There is none.
    """
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if loader is None:
        raise UserError(f'config {cfg.filename} has no test_dataloader, whose pipeline is needed')
    return next(leaf_datasets(loader.dataset))


def names_by_label(cfg: Config, known: Sequence[str] | None) -> tuple[str, ...]:
    """Names by label: those that are known, else those of the config's dataset, else numbers.

    Args:
        cfg: Complete config.
        known: Names that a checkpoint holds; None or empty if it holds none.
    """
    count = (cfg.model.get('bbox_head') or {}).get('num_classes')
    names = tuple(known or ())
    if not names and (cfg.get('test_dataloader') or cfg.get('val_dataloader')):
        dataset = evaluated_dataset(cfg)
        # asked of the class, since a dataset that is built reads its files
        kind = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
        names = tuple(kind._load_metainfo(dataset.get('metainfo')).get('classes') or ())
    if count is None or len(names) == count:
        return names
    return tuple(f'class {label}' for label in range(count))


def array_pipeline(cfg: Config, tta: bool = False) -> Compose:
    """The test pipeline, given images (``img``, BGR, and ``img_id``) instead of reading them.

    Args:
        cfg: Complete config, which stays as it is.
        tta: Give the mirror image as well.

    Raises:
        UserError: There is none, or it does not read images.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    steps = copy.deepcopy(list(evaluated_dataset(cfg).pipeline))
    if tta:
        steps = tta_pipeline(cfg, steps)
    steps = [step for step in steps if step.type != 'LoadAnnotations']
    places = [place for place, step in enumerate(steps) if step.type == 'LoadImageFromFile']
    if not places:
        raise UserError(f'the test pipeline of config {cfg.filename} has no LoadImageFromFile')
    float32 = steps[places[0]].get('to_float32', False)
    steps[places[0]] = dict(type='LoadImageFromNDArray', to_float32=float32)
    return Compose(steps)
