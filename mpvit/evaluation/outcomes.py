"""Which detection found which object, and what is wrong with those that found none.

The outcomes are those of TIDE (Bolya et al., ECCV 2020, section 2.2), told apart by the overlap
(IoU) with objects of the same and of other classes.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from pycocotools import mask

from mpvit.evaluation.result_files import Columns, Floats, Ints, Mask, Results

FOREGROUND = 0.5  # IoU from which a detection is at an object
BACKGROUND = 0.1  # IoU up to which it has nothing to do with it
OUTCOMES = ('found', 'class', 'location', 'both', 'duplicate', 'background', 'ignored')
FOUND, CLASS, LOCATION, BOTH, DUPLICATE, NOTHING, IGNORED = range(len(OUTCOMES))


@dataclass(frozen=True)
class Pairs(Columns):
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
    same: Mask
    crowd: Mask


@dataclass(frozen=True)
class Outcomes:
    """What became of every detection and object.

    Attributes:
        results: Ground truth and detections.
        outcome: Index into `OUTCOMES`, ``(N,)``. A detection in a crowd of its class counts for
            nothing and is 'ignored'.
        target: The object that a detection found, that it should have found ('class',
            'location', 'both'), or that was found by a better one ('duplicate'); -1 for none,
            ``(N,)``.
        pairs: All that overlap.
    """

    results: Results
    outcome: Ints
    target: Ints
    pairs: Pairs

    @cached_property
    def found(self) -> Mask:
        """Which objects were found, ``(M,)``."""
        return self._met(FOUND)

    @cached_property
    def missed(self) -> Mask:
        """Which objects no detection comes close to, without crowds, ``(M,)``.

        They are neither found nor the target of a wrong class or location.
        """
        return np.asarray(~self.results.objects.crowd & ~self._met(FOUND, CLASS, LOCATION))

    def _met(self, *codes: int) -> Mask:
        met = np.zeros(len(self.results.objects.label), bool)
        met[self.target[np.isin(self.outcome, codes)]] = True
        return met

    def above(self, threshold: float) -> 'Outcomes':
        """The same of the detections with this score or more.

        The matching need not be done again: no detection takes an object from one with a better
        score.
        """
        keep = self.results.detected.score >= threshold
        pairs = self.pairs.where(keep[self.pairs.detection])
        return Outcomes(
            replace(self.results, detected=self.results.detected.where(keep)),
            self.outcome[keep],
            self.target[keep],
            replace(pairs, detection=(np.cumsum(keep) - 1)[pairs.detection]),
        )


def judge(results: Results) -> Outcomes:
    """Decide what became of every detection and object, by COCO's matching at an IoU of 0.5."""
    pairs, count = _overlaps(results), len(results.detected.score)
    real, close = ~pairs.crowd, pairs.iou >= FOREGROUND
    fits = pairs.where(real & close & pairs.same)
    matched = _assign(fits.where(np.lexsort((-fits.iou, fits.detection))), results)

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
    conditions, codes, targets = map(list, zip(*rules, strict=True))
    outcome = np.select(conditions, codes, NOTHING)
    return Outcomes(results, outcome, np.select(conditions, targets, -1), pairs)


def _overlaps(results: Results) -> Pairs:
    """All pairs of a detection and an object with an IoU above `BACKGROUND`."""
    objects, detected = results.objects, results.detected
    nothing = np.zeros(0, np.int64)
    parts = [(nothing, nothing, np.zeros(0))]
    ends = np.arange(len(results.files) + 1)
    rows = np.searchsorted(detected.image, ends)
    columns = np.searchsorted(objects.image, ends)
    for image in np.flatnonzero((np.diff(rows) > 0) & (np.diff(columns) > 0)):
        row, column = slice(*rows[image : image + 2]), slice(*columns[image : image + 2])
        crowd = objects.crowd[column].astype(np.uint8)
        iou = mask.iou(detected.boxes[row], objects.boxes[column], crowd)
        near = np.nonzero(iou > BACKGROUND)
        parts.append((near[0] + row.start, near[1] + column.start, iou[near]))
    detection, target, iou = map(np.concatenate, zip(*parts, strict=True))
    same = detected.label[detection] == objects.label[target]
    return Pairs(detection, target, iou, same, objects.crowd[target])


def _assign(fits: Pairs, results: Results) -> Ints:
    """Give each detection at most one object and each object at most one detection.

    Args:
        fits: The pairs that may be, those to be preferred first.
        results: Ground truth and detections.

    Returns:
        The object of each detection, -1 for none, ``(N,)``.
    """
    matched = [-1] * len(results.detected.label)
    free = [True] * len(results.objects.label)
    for detection, target in zip(fits.detection.tolist(), fits.target.tolist(), strict=True):
        if free[target] and matched[detection] < 0:
            matched[detection] = target
            free[target] = False
    return np.array(matched, np.int64)


def _best(pairs: Pairs, count: int) -> tuple[Floats, Ints]:
    """The largest overlap of each detection, 0 without one, and with which object."""
    iou, target = np.zeros(count), np.full(count, -1)
    last = pairs.where(np.lexsort((-pairs.target, pairs.iou)))  # of several assignments it stays
    iou[last.detection], target[last.detection] = last.iou, last.target
    return iou, target


def confusion(outcomes: Outcomes) -> Ints:
    """Which class was taken for which.

    Pairs with an IoU of at least 0.5 are matched, those of one class first, then by overlap.

    Args:
        outcomes: Best of the detections above a threshold.

    Returns:
        Counts by true class (rows) and detected class (columns), each with the background as the
        last: its row has the detections at no object, its column the objects not detected;
        ``(K + 1, K + 1)``. Crowds, and what lies in them, do not count.
    """
    objects, detected = outcomes.results.objects, outcomes.results.detected
    background = len(outcomes.results.names)
    fits = outcomes.pairs.where((outcomes.pairs.iou >= FOREGROUND) & ~outcomes.pairs.crowd)
    matched = _assign(fits.where(np.lexsort((-fits.iou, ~fits.same))), outcomes.results)
    hit, left = matched >= 0, ~objects.crowd
    left[matched[hit]] = False
    counted = hit | (outcomes.outcome != IGNORED)
    true = np.append(objects.label, background)[matched]  # the last one where there is no object
    counts = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(counts, (true[counted], detected.label[counted]), 1)
    counts[:-1, -1] = np.bincount(objects.label[left], minlength=background)
    return counts


def image_counts(outcomes: Outcomes) -> Ints:
    """The objects found, those not found, and the wrong detections of each image, ``(I, 3)``."""
    objects, image = outcomes.results.objects, outcomes.results.detected.image
    real, total = objects.image[~objects.crowd], len(outcomes.results.files)
    hit, counted = outcomes.outcome == FOUND, outcomes.outcome != IGNORED
    found, shown, there = (
        np.bincount(images, minlength=total) for images in (image[hit], image[counted], real)
    )
    return np.column_stack([found, there - found, shown - found])
