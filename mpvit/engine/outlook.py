"""Warnings before the first step of a training that will not lead to a good detector."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mpvit.config.reading import is_of_classifier, leaf_datasets
from mpvit.datasets.annotations import read_annotations
from mpvit.datasets.check import Scales
from mpvit.datasets.table import Annotations, Floats, blocks
from mpvit.engine.data_check import coco_files
from mpvit.engine.initial_weights import has_trained_backbone, whole_model
from mpvit.engine.run_folder import candidates

# Detectors with transformers need many images to learn from: trained from a backbone's weights they
# fall behind others already on the 2,975 images of Cityscapes (Wang et al. 2022, "Towards
# Data-Efficient Detection Transformers"). Epochs do not make up for that, so images are counted.
_FEW = 2000
_MADE_FOR = 'ToyDataset'  # its shapes are drawn, its configs are made to learn them from nothing
_SMALL = 16  # pixels: two cells of the finest map, which has a stride of 8
_SHARE = 0.5  # of the boxes under it, from which on it is worth a warning
_STEP = 32  # pixels, of which sizes are multiples
_TILES = 'cut the images into tiles'


def warn_of_outlook(runner: Runner) -> None:
    """Log a warning for each reason why a training can hardly succeed; see `outlook`.

    A classifier, and a training that is resumed, are left alone.
    """
    cfg = runner.cfg
    resume = cfg.get('resume')
    resumed = candidates(cfg.work_dir) if resume == 'auto' else resume
    if is_main_process() and not resumed and not is_of_classifier(cfg):
        for line in outlook(cfg):
            runner.logger.warning(line)


def outlook(cfg: Config) -> Iterator[str]:
    """Why a training can hardly succeed, each reason in a line that says what to do.

    There are too few images to start without a detector's weights, most objects are too small at
    the size of the evaluation, or an image has more objects than the detector can find. Nothing is
    said about data that is not in one local COCO file.

    Args:
        cfg: Complete config of a detector.
    """
    train, _ = coco_files(cfg, 'train')
    if train is None:
        return
    truth = read_annotations(train.ann_file, strict=False)
    trained = truth.trained
    counts = np.zeros(len(truth.images), int)
    for rows in blocks(len(trained)):
        of_boxes = truth.image_row[rows][trained[rows]]
        counts += np.bincount(of_boxes, minlength=len(counts))
    (dataset,) = leaf_datasets(cfg.train_dataloader.dataset)
    made_for = str(dataset.type).rpartition('.')[2] == _MADE_FOR
    if not made_for and whole_model(cfg) is None:
        yield from _few_images(int((counts > 0).sum()), has_trained_backbone(cfg))
    loader = cfg.get('val_dataloader') or cfg.train_dataloader
    pipeline = next(leaf_datasets(loader.dataset)).get('pipeline') or []
    scales = Scales.of_pipeline(pipeline)
    if scales is not None and scales.longest is not None:
        yield from _small_objects(truth, scales, scales.longest)
    yield from _many_objects(counts, cfg.model.get('module', cfg.model))


def _few_images(count: int, trained_backbone: bool) -> Iterator[str]:
    if count >= _FEW:
        return
    start = "start from a detector's weights: --preset finetune (docs/finetune.md)"
    if trained_backbone:
        what = 'few if only the backbone was trained before'
    else:
        what = 'too few to train a detector from random numbers'
    yield f'{count:,} images with objects are {what}; {start}'


def _small_objects(truth: Annotations, scales: Scales, longest: int) -> Iterator[str]:
    known = np.isfinite(truth.sizes[:, 0])  # NaN for both sides or neither
    factor = np.full(len(known), np.nan)
    factor[known] = scales.factor(truth.sizes[known])
    trained, parts = truth.trained, []
    for rows in blocks(len(trained)):
        image = truth.image_row[rows]
        keep = trained[rows] & known[image]
        boxes = truth.clipped(rows)[keep]
        parts.append(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) * factor[image[keep]])
    resized = np.concatenate(parts)
    if not len(resized):
        return
    share = float((resized < _SMALL).mean())
    if share >= _SHARE:
        own = longest / float(np.median(factor[known]))  # at which images keep their size
        yield (
            f'{share:.0%} of the training boxes are smaller than {_SMALL} px at this size (longest '
            f'side {longest}): objects of this size are rarely found; '
            f'{_larger(longest, own, resized)}'
        )


def _larger(longest: int, own: float, resized: Floats) -> str:
    """What makes three of four objects large enough."""
    factor = _SMALL / float(np.quantile(resized, 0.25))
    size = _STEP * math.ceil(longest * factor / _STEP)
    if size <= _STEP * math.ceil(own / _STEP):
        return f'use --image-size {size}'
    tile = _STEP * max(2, math.floor(own / factor / _STEP))
    return f'{_TILES} of about {tile} px'


def _many_objects(counts: Any, model: Any) -> Iterator[str]:
    limits = {
        'model.num_queries': model.get('num_queries'),
        'model.test_cfg.max_per_img': (model.get('test_cfg') or {}).get('max_per_img'),
    }
    most = int(counts.max(initial=0))
    short = {name: limit for name, limit in limits.items() if limit is not None and limit < most}
    if short:
        number = int((counts > min(short.values())).sum())
        raised = ' '.join(f'{name}={most}' for name in short)
        yield (
            f'{number:,} images have more objects than the detector can find in one '
            f'({min(short.values())}; up to {most} are there): {_TILES}, or use --cfg-options '
            f'{raised}'
        )
