"""Which detection found which object, and what is wrong with those that found none.

The outcomes are those of TIDE (Bolya et al., ECCV 2020, section 2.2), told apart by the overlap
(IoU) with objects of the same and of other classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask

from mpvit.evaluation.result_files import Floats, Ints, Results

FOREGROUND = 0.5  # IoU from which a detection is at an object
BACKGROUND = 0.1  # IoU up to which it has nothing to do with it
OUTCOMES = ('found', 'class', 'location', 'both', 'duplicate', 'background', 'ignored')
FOUND, CLASS, LOCATION, BOTH, DUPLICATE, NOTHING, IGNORED = range(len(OUTCOMES))


@dataclass(frozen=True)
class Pairs:
    """Detections and objects that overlap, ``(P,)`` each.

    Attributes:
        detection: Index of the detection, ascending.
        target: Index of the object.
        iou: Overlap, in [0.1, 1]; with a crowd, the share of the detection that lies in it.
        same: Whether the classes are the same.
        crowd: Whether the object is a crowd.
    """

    detection: Ints
    target: Ints
    iou: Floats
    same: NDArray[np.bool_]
    crowd: NDArray[np.bool_]

    def where(self, keep: NDArray[np.bool_]) -> 'Pairs':
        """Some of them."""
        return Pairs(**{name: column[keep] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Outcomes:
    """What became of every detection and object.

    Attributes:
        outcome: Index into `OUTCOMES`, ``(N,)``. A detection in a crowd of its class counts for
            nothing and is 'ignored'.
        target: The object that a detection found, that it should have found ('class',
            'location', 'both'), or that was found by a better one ('duplicate'); -1 for none,
            ``(N,)``.
        found: Which objects were found, ``(M,)``.
        missed: Which objects no detection comes close to: neither found nor the target of a wrong
            class or location; without crowds, ``(M,)``.
        pairs: All that overlap.
    """

    outcome: Ints
    target: Ints
    found: NDArray[np.bool_]
    missed: NDArray[np.bool_]
    pairs: Pairs


def overlaps(results: Results) -> Pairs:
    """All pairs of a detection and an object with an IoU above `BACKGROUND`.

    Args:
        results: Ground truth and detections.
    """
    objects, detected = results.objects, results.detected
    nothing = np.zeros(0, np.int64)
    parts = [(nothing, nothing, np.zeros(0))]
    ends = np.arange(len(results.files) + 1)
    rows = np.searchsorted(detected.image, ends)
    columns = np.searchsorted(objects.image, ends)
    for row, row_end, column, column_end in zip(
        rows[:-1], rows[1:], columns[:-1], columns[1:], strict=True
    ):
        if row == row_end or column == column_end:
            continue
        crowd = objects.crowd[column:column_end].astype(np.uint8)
        boxes = detected.boxes[row:row_end], objects.boxes[column:column_end]
        iou = mask.iou(*boxes, crowd)
        near = np.nonzero(iou > BACKGROUND)
        parts.append((near[0] + row, near[1] + column, iou[near]))
    detection, target, iou = map(np.concatenate, zip(*parts, strict=True))
    same = detected.label[detection] == objects.label[target]
    return Pairs(detection, target, iou, same, objects.crowd[target])


def judge(results: Results) -> Outcomes:
    """Decide what became of every detection and object, by COCO's matching at an IoU of 0.5.

    Args:
        results: Ground truth and detections.
    """
    pairs = overlaps(results)
    count, objects = len(results.detected.score), results.objects
    real, close = ~pairs.crowd, pairs.iou >= FOREGROUND
    fits = pairs.where(real & close & pairs.same)
    order = np.lexsort((-fits.iou, fits.detection))  # the best score first
    matched = assign(fits.detection[order], fits.target[order], count, len(objects.label))

    same_iou, same_target = _best(pairs.where(real & pairs.same), count)
    other_iou, other_target = _best(pairs.where(real & ~pairs.same), count)
    ignored = np.zeros(count, bool)
    ignored[pairs.detection[pairs.crowd & close & pairs.same]] = True
    rules = [
        (matched >= 0, FOUND, matched),
        (ignored, IGNORED, np.full(count, -1)),
        ((same_iou > BACKGROUND) & (same_iou < FOREGROUND), LOCATION, same_target),
        (other_iou >= FOREGROUND, CLASS, other_target),
        (same_iou >= FOREGROUND, DUPLICATE, same_target),
        (other_iou > BACKGROUND, BOTH, other_target),
    ]
    conditions = [condition for condition, _, _ in rules]
    outcome = np.select(conditions, [code for _, code, _ in rules], NOTHING)
    target = np.select(conditions, [target for _, _, target in rules], -1)

    found = np.zeros(len(objects.label), bool)
    found[matched[matched >= 0]] = True
    missed = ~found & ~objects.crowd
    missed[target[(outcome == LOCATION) | (outcome == CLASS)]] = False
    return Outcomes(outcome, target, found, missed, pairs)


def assign(detections: Ints, targets: Ints, count: int, target_count: int) -> Ints:
    """Give each detection at most one object and each object at most one detection.

    Args:
        detections: Of the pairs that fit, those to be preferred first, ``(P,)``.
        targets: The objects of the pairs, ``(P,)``.
        count: How many detections there are.
        target_count: How many objects there are.

    Returns:
        The object of each detection, -1 for none, ``(count,)``.
    """
    matched = [-1] * count
    free = [True] * target_count
    for detection, target in zip(detections.tolist(), targets.tolist(), strict=True):
        if free[target] and matched[detection] < 0:
            matched[detection] = target
            free[target] = False
    return np.array(matched, np.int64)


def confusion(results: Results, outcomes: Outcomes) -> Ints:
    """Which class was taken for which.

    Pairs with an IoU of at least 0.5 are matched, those of one class first, then by overlap.

    Args:
        results: Ground truth and detections, best those above a threshold.
        outcomes: Their `judge`.

    Returns:
        Counts by true class (rows) and detected class (columns), each with the background as the
        last: its row has the detections at no object, its column the objects not detected;
        ``(K + 1, K + 1)``. Crowds, and what lies in them, do not count.
    """
    objects, detected, background = results.objects, results.detected, len(results.names)
    fits = outcomes.pairs.where((outcomes.pairs.iou >= FOREGROUND) & ~outcomes.pairs.crowd)
    order = np.lexsort((-fits.iou, ~fits.same))
    matched = assign(
        fits.detection[order], fits.target[order], len(detected.label), len(objects.label)
    )
    counts = np.zeros((background + 1, background + 1), np.int64)
    hit = matched >= 0
    np.add.at(counts, (objects.label[matched[hit]], detected.label[hit]), 1)
    alone = ~hit & (outcomes.outcome != IGNORED)
    counts[background] += np.bincount(detected.label[alone], minlength=background + 1)
    left = ~objects.crowd
    left[matched[hit]] = False
    counts[:, background] += np.bincount(objects.label[left], minlength=background + 1)
    return counts


def _best(pairs: Pairs, count: int) -> tuple[Floats, Ints]:
    """The largest overlap of each detection, 0 without one, and with which object."""
    iou, target = np.zeros(count), np.full(count, -1)
    order = np.lexsort((-pairs.target, pairs.iou))  # of several assignments the last one stays
    iou[pairs.detection[order]] = pairs.iou[order]
    target[pairs.detection[order]] = pairs.target[order]
    return iou, target
