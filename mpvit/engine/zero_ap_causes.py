"""Why a detector finds nothing: causes that can be seen in detections, losses and annotations.

Every function returns the causes it found, one sentence each, and none where it found none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Focal loss starts at scores of 0.01, and the first steps raise some of them to 0.1 or 0.2 wherever
# the boxes are; what is below this says nothing.
SURE = 0.3
_IOU = 0.5
_ENOUGH = 3  # overlaps of a class from which its usual name counts
_EDGE = 1.01  # boxes may stick out by a rounding
_TREND = 50  # losses from which a trend shows
_LOOKED_AT = 20  # images whose files are opened
_SHOWN = 4
Array = NDArray[Any]


@dataclass(frozen=True)
class Detected:
    """Detections and objects of one image.

    Attributes:
        boxes: Detections, ``(N, 4)`` as ``(x1, y1, x2, y2)`` in pixels.
        scores: Their scores in [0, 1], ``(N,)``.
        labels: Their classes, ``(N,)``.
        truth: Objects, ``(M, 4)``.
        truth_labels: Their classes, ``(M,)``.
    """

    boxes: Array
    scores: Array
    labels: Array
    truth: Array
    truth_labels: Array


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes:
        step: Steps done.
        total: Steps that the training has.
        lr: Learning rate of the last step.
        full_lr: Learning rate without warm-up and decay.
        warm_up: Steps of the warm-up; 0 for none.
        losses: The loss of every step.
    """

    step: int
    total: int
    lr: float
    full_lr: float
    warm_up: int
    losses: Array


def detection_causes(images: Sequence[Detected], classes: Sequence[str]) -> list[str]:
    """Causes that show in what was detected.

    Args:
        images: Validated images.
        classes: Names of the classes.
    """
    if not sum(len(image.truth) for image in images):
        return [
            f'none of the {len(images)} validated images has a box of the classes '
            f'({_listed(classes)}): look at the validation annotations'
        ]
    scores = np.concatenate([image.scores for image in images])
    if not len(scores):
        return ['the detector returns no detection at all: is test_cfg.score_thr too high?']
    if scores.max() < SURE:  # what the boxes are then is chance
        return [
            f'the highest score of {len(scores)} detections is {scores.max():.3f}: the detector '
            'has not learned to tell objects from background yet'
        ]
    return _class_causes(images, classes) + _box_causes(images)


def training_causes(progress: Progress) -> list[str]:
    """Causes that show in the learning rate and the losses.

    Args:
        progress: Where the training is.
    """
    causes = []
    step, lr = progress.step, progress.lr
    if step < progress.warm_up:
        causes.append(
            f'the warm-up is at step {step} of {progress.warm_up}, the learning rate at {lr:.2g} '
            f'of {progress.full_lr:.2g}'
        )
    elif lr < 1e-8:
        causes.append(f'the learning rate is {lr:.2g}: look at param_scheduler and its end')
    losses = progress.losses
    if not np.isfinite(losses).all():
        causes.append('losses that are not finite: the learning rate is too high')
    elif 0 < len(losses) < _TREND:
        causes.append(f'the training had {step} steps of {progress.total} so far, which is few')
    elif len(losses):
        tenth = len(losses) // 10
        first, last = losses[:tenth].mean(), losses[-tenth:].mean()
        change = f'{first:.2f} to {last:.2f} in {step} steps at a learning rate of {lr:.2g}'
        if last > 1.2 * first:
            causes.append(f'the loss has grown, from {change}: the learning rate is too high')
        elif last > 0.95 * first:
            causes.append(
                f'the loss has hardly fallen, from {change}: the learning rate is too low or far '
                'too high, or the training too short'
            )
        else:
            causes.append(
                f'the training is at step {step} of {progress.total} and the loss is falling, '
                f'from {change}: it may just be too short so far'
            )
    return causes


def annotation_causes(content: Mapping[str, Any], kept: int, where: str) -> list[str]:
    """Causes that show in an annotation file.

    Args:
        content: Of a file in COCO format.
        kept: Boxes that the dataset made of it.
        where: What the file is for, such as 'training'.
    """
    notes = [note for note in content['annotations'] if not note.get('iscrowd')]
    boxes = np.array([note['bbox'] for note in notes], float).reshape(-1, 4)
    if not len(boxes):
        return [f'the {where} annotations hold no boxes']
    if 0 < boxes.max() <= 1:
        return [
            f'the {where} boxes are fractions between 0 and 1; COCO has them in pixels, as '
            '(x, y, width, height)'
        ]
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    limits = np.array([sizes.get(note['image_id'], (np.inf, np.inf)) for note in notes])
    causes = []
    past = (boxes[:, :2] + boxes[:, 2:] > _EDGE * limits).any(1)
    corners = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= _EDGE * limits)).all(1)
    if past.mean() > 0.3 and corners.mean() > 0.95:
        causes.append(
            f'{_part(past)} {where} boxes reach out of their image: they look like corners '
            '(x1, y1, x2, y2), where COCO has (x, y, width, height)'
        )
    lost = len(boxes) - kept
    if lost > 0.1 * len(boxes):
        known = {category['id'] for category in content['categories']}
        unknown = sum(note['category_id'] not in known for note in notes)
        outside = ((boxes[:, :2] >= limits) | (boxes.min(1, keepdims=True) < 0)).any(1)
        flat = (boxes[:, 2:] <= 0).any(1)
        causes.append(
            f'{lost} of {len(boxes)} {where} boxes are not used ({unknown} of unknown categories, '
            f'{(flat | outside).sum()} flat or outside of their image; the rest of categories '
            'that are no class, or left out by filter_cfg)'
        )
    return causes


def image_causes(images: Sequence[tuple[str, int, int]], where: str) -> list[str]:
    """Causes that show in the image files.

    Args:
        images: Path, stated width and stated height of images, of which the first are opened.
        where: What they are for, such as 'training'.
    """
    different = []
    images = [entry for entry in images[:_LOOKED_AT] if Path(entry[0]).is_file()]
    for path, width, height in images:
        with Image.open(path) as image:
            if image.size != (width, height):
                different.append(
                    f'{path} is {image.width} x {image.height}, stated {width} x {height}'
                )
    if not different:
        return []
    return [
        f'{len(different)} of {len(images)} {where} images have another size than the annotation '
        f'file says, so their boxes are misplaced: {different[0]}'
    ]


def _class_causes(images: Sequence[Detected], classes: Sequence[str]) -> list[str]:
    present = {int(label) for image in images for label in image.truth_labels}
    called: dict[int, Counter[int]] = {label: Counter() for label in present}
    predicted: set[int] = set()
    for image in images:
        best = np.argsort(-image.scores)[: len(image.truth)]
        predicted |= {int(label) for label in image.labels[best]}
        overlaps = _overlaps(image.truth, image.boxes)
        for label, row in zip(image.truth_labels, overlaps, strict=True):
            on_it = np.flatnonzero((row >= _IOU) & (image.scores >= SURE))
            if len(on_it):
                called[int(label)][int(image.labels[on_it[image.scores[on_it].argmax()]])] += 1
    wrong = _wrong_names(called)
    if wrong:
        names = [f'{classes[label]!r} is called {classes[other]!r}' for label, other in wrong]
        return [
            f'boxes are right and their classes are not: {_listed(names)}; training and '
            'validation number the classes differently: compare the categories in both annotation '
            'files with metainfo.classes'
        ]
    if not predicted & present:
        return [
            f'the classes detected ({_listed(_names(predicted, classes))}) are not those of the '
            f'validation set ({_listed(_names(present, classes))})'
        ]
    if len(predicted) == 1 and len(present) > 2:
        return [f'the best detections are all of one class, {classes[predicted.pop()]!r}']
    return []


def _wrong_names(called: Mapping[int, Counter[int]]) -> list[tuple[int, int]]:
    """Classes that are nearly always taken for another one, if most classes are."""
    usual = {
        label: counts.most_common(1)[0]
        for label, counts in called.items()
        if counts.total() >= _ENOUGH
    }
    wrong = [
        (label, other)
        for label, (other, count) in usual.items()
        if other != label and count > 0.6 * called[label].total()
    ]
    # everything taken for one and the same class is no exchange of names
    exchanged = len(usual) == 1 or len({other for _, other in wrong}) > 1
    return sorted(wrong) if exchanged and len(wrong) > 0.5 * len(usual) else []


def _box_causes(images: Sequence[Detected]) -> list[str]:
    """Detections that are sure of themselves and lie nowhere on the objects."""
    best, found, real = [], [], []
    for image in images:
        sure = np.flatnonzero(image.scores >= SURE)
        overlaps = _overlaps(image.truth, image.boxes[sure])
        best += list(overlaps.max(1, initial=0))
        found += list(np.sqrt(_areas(image.boxes[sure])))
        real += list(np.sqrt(_areas(image.truth)))
    hits = (np.array(best) >= _IOU).mean()
    if hits > 0.02:
        return []
    return [
        f'no box fits: {hits:.0%} of {len(best)} objects are covered with an IoU of {_IOU} or more '
        f'(best {max(best):.2f}); detections have a side of {np.median(found):.0f} px in the '
        f'median, objects of {np.median(real):.0f} px: scale or format of the boxes differ '
        'between training and validation'
    ]


def _overlaps(a: Array, b: Array) -> Array:
    """IoU of every box in ``a`` with every one in ``b``."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clip(0).prod(-1)
    union = _areas(a)[:, None] + _areas(b) - both
    return both / np.maximum(union, 1e-9)


def _areas(boxes: Array) -> Array:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)


def _part(mask: Array) -> str:
    return f'{mask.sum()} of {len(mask)}'


def _names(labels: set[int], classes: Sequence[str]) -> list[str]:
    return [classes[label] for label in sorted(labels)]


def _listed(names: Sequence[str]) -> str:
    return ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else '')
