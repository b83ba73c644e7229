"""A config changed so that it fine-tunes a detector on a dataset: `mpvit train --preset finetune`.

The published recipes train on 118,000 images for days. Here weights of a trained detector learn
other classes from 50 to 50,000 images: a short schedule, images and crops sized by the objects,
stronger augmentation, an average of the weights, and an end when nothing improves any more.
"""

import math
import os
from dataclasses import dataclass, replace

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from mpvit.config.flags import TrainingFlags, long_side, set_hook
from mpvit.config.reading import leaf_datasets, refuse_classifier
from mpvit.datasets.annotations import read_annotations
from mpvit.datasets.check import Scales
from mpvit.errors import UserError

_STEP = 64  # pixels, of which sizes are multiples
_OBJECT = 24  # pixels that a smaller object should have: three cells of the finest map, stride 8
# Pixels up to which a config for smaller images is enlarged, and down to which others are shrunk;
# on a CPU
_USUAL, _SLOW = 640, 256
_EVALUATIONS = 10
_PATIENCE = 4  # evaluations without a better AP
_FEW = 5000  # images up to which the stem and the first stage keep their weights
_LR = 0.75  # of the config's learning rate
_BATCHES = 64  # steps that an epoch should have at least, where a batch of 4 gives them
_WARM_UP = 40  # steps
_MOMENTUM = 0.02  # of the average: over about the last 50 steps
# class layers start anew: theirs is all of the config's
_NEW_LAYERS = ConfigDict(cls_branches=ConfigDict(lr_mult=1 / _LR))


@dataclass(frozen=True)
class Facts:
    """What the recipe depends on of a training set.

    Attributes:
        images: With objects.
        small: A smaller object (the lower quartile of the square roots of the areas), as a part of
            the longer side of its image.
        most: Objects of the image with the most.
    """

    images: int
    small: float
    most: int

    @classmethod
    def of(cls, config: Config) -> 'Facts':
        """Those of a config's training data.

        Raises:
            UserError: It is not one COCO file, or no box can be used.
        """
        datasets = list(leaf_datasets(config.train_dataloader.dataset))
        if len(datasets) != 1 or not datasets[0].get('ann_file'):
            raise UserError('--preset finetune needs one annotation file; name the data by --data')
        root = datasets[0].get('data_root') or ''
        file = os.path.join(root, datasets[0].ann_file)
        if '://' not in file and not os.path.isfile(file):
            raise UserError(f'--preset finetune: no file {file}; name your dataset by --data DIR')
        truth = read_annotations(file, strict=False)
        sides = np.nan_to_num(truth.sizes).max(1, initial=0)
        kept = truth.trained & (sides[truth.image_row] > 0)
        if not kept.any():
            raise UserError(f'annotation file {truth.file} has no box to train on')
        rows, boxes = truth.image_row[kept], truth.clipped(kept)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        counts = np.bincount(rows)
        return cls(
            images=int((counts > 0).sum()),
            small=float(np.quantile(np.sqrt(areas) / sides[rows], 0.25)),
            most=int(counts.max()),
        )


def finetune(config: Config, flags: TrainingFlags | None = None) -> str:
    """Change a config, which has its data already, in place.

    Args:
        config: Config of a detector; of one that was fine-tuned before the rates stay.
        flags: What the user chose; the recipe chooses the rest.

    Returns:
        A line that says what was chosen.

    Raises:
        UserError: The data have nothing to train on, or the config is of a classifier.
    """
    refuse_classifier(config)
    facts = Facts.of(config)
    slow = get_device() == 'cpu'
    given = flags or TrainingFlags()
    size = given.image_size or image_size(facts, long_side(config), _SLOW if slow else _USUAL)
    epochs = given.epochs or epochs_for(facts.images, slow)
    frozen = given.freeze
    if frozen is None and facts.images <= _FEW:
        frozen = 1
    batch = given.batch_size
    if not isinstance(batch, int):  # 'auto' is found later
        batch = min(config.train_dataloader.batch_size, max(4, facts.images // _BATCHES))
    patience = given.early_stop or _PATIENCE
    _scale_lr(config, batch)
    replace(
        given,
        epochs=None,  # set below, with the schedule
        batch_size=batch,
        image_size=size,
        freeze=frozen,
        early_stop=patience,
    ).apply(config)
    _augment(config, size)
    _add_queries(config, facts.most, size)
    _set_schedule(config, epochs)
    kept = ', stem and first stage frozen' if frozen == 1 else ''
    return (
        f'Fine-tuning on {facts.images:,} images with objects: {epochs} epochs at {size} px, '
        f'batch {batch}, {config.model.num_queries} queries{kept}; ends after {patience} '
        'evaluations without a better AP'
    )


def image_size(facts: Facts, own: int, usual: int = _USUAL) -> int:
    """The longer side of the images in pixels, so that smaller objects have `_OBJECT` pixels.

    Args:
        facts: Of the training set.
        own: Longer side in the config: a detector finds objects best at sizes that it has seen, so
            the size stays between that and the usual one.
        usual: What the device computes in useful time.
    """
    wanted = _STEP * round(_OBJECT / facts.small / _STEP)
    return min(max(wanted, min(own, usual)), max(own, usual))


def epochs_for(images: int, slow: bool = False) -> int:
    """Length of the schedule: 4 times as many images, half the epochs.

    Args:
        images: In the training set.
        slow: The device is a CPU, where a third of the epochs has to do.
    """
    return max(8, round((320 if slow else 900) / math.sqrt(images)))


def _augment(config: Config, size: int) -> None:
    """Flips, sizes, crops and colours in place of the config's steps."""
    scales = Scales.of_pipeline(next(leaf_datasets(config.test_dataloader.dataset)).pipeline)
    # limits of the longer and the shorter side, around which images are resized: the evaluation's
    scale = (size, scales.high) if scales else (size, size)
    for dataset in leaf_datasets(config.train_dataloader.dataset):
        load = dataset.pipeline[0]
        steps = [
            load,
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='RandomFlip', prob=0.5),
            dict(
                type='RandomResize',
                scale=scale,
                ratio_range=(0.8, 1.25),
                resize_type='Resize',
                keep_ratio=True,
                backend='pillow',  # filters where it shrinks, as in the evaluation
            ),
            dict(type='RandomCrop', crop_size=(size, size), allow_negative_crop=True),
            dict(type='FilterAnnotations', min_gt_bbox_wh=(3, 3), keep_empty=False),
            # not PhotoMetricDistortion, which swaps the colour channels of half of the images
            dict(type='YOLOXHSVRandomAug'),
            dict(type='PackDetInputs'),
        ]
        dataset.pipeline = [ConfigDict(step) for step in steps]


def _add_queries(config: Config, most: int, size: int) -> None:
    """At least twice as many queries as objects, where queries come from proposals.

    Not more than DINO's 900, and half as many as the finest map, of stride 8, has points.

    A two-stage Deformable DETR has no weights for each query, and those of a DINO are repeated
    (`mpvit.checkpoints.class_layers.with_queries`).
    """
    model = config.model
    if model.get('as_two_stage'):
        wanted = min(10 * math.ceil(most / 5), 900, (size // 8) ** 2 // 2)
        model.num_queries = max(model.num_queries, wanted)
        test = model.setdefault('test_cfg', ConfigDict())
        test.max_per_img = max(test.get('max_per_img', 100), model.num_queries)


def _scale_lr(config: Config, batch: int) -> None:
    """The learning rate for a batch, from which it follows that of other numbers of processes."""
    wrapper = config.optim_wrapper
    settings = wrapper.setdefault('paramwise_cfg', ConfigDict())
    keys = settings.setdefault('custom_keys', ConfigDict())
    scaling = config.setdefault('auto_scale_lr', ConfigDict())
    if not _NEW_LAYERS.keys() <= keys.keys():  # not one that was fine-tuned before
        wrapper.optimizer.lr *= _LR
        keys.update(_NEW_LAYERS)
    wrapper.optimizer.lr *= math.sqrt(batch / scaling.get('base_batch_size', batch))
    scaling.update(enable=True, rule='sqrt', base_batch_size=batch)


def _set_schedule(config: Config, epochs: int) -> None:
    """Warm-up and cosine, about ten evaluations, an average of the weights."""
    config.train_cfg.max_epochs = epochs
    config.train_cfg.val_interval = max(1, epochs // _EVALUATIONS)
    config.param_scheduler = [
        ConfigDict(type='LinearLR', start_factor=0.02, by_epoch=False, end=_WARM_UP),
        ConfigDict(
            type='CosineAnnealingLR',
            by_epoch=True,
            T_max=epochs,
            eta_min_ratio=0.01,
            convert_to_iter_based=True,
        ),
    ]
    set_hook(config, ConfigDict(type='EMAHook', ema_type='SharedWeightsEMA', momentum=_MOMENTUM))
