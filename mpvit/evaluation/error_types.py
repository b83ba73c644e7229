"""How much AP each kind of error costs: TIDE (Bolya et al., ECCV 2020, section 2.3).

The AP at an IoU of 0.5 is computed anew with one kind of error put right by an oracle; the
difference is what that kind costs. `tidecv`, the authors' package, is not maintained; on the same
data this gives its numbers (tests/evaluation/test_error_types.py).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpvit.evaluation.outcomes import (
    BOTH,
    CLASS,
    DUPLICATE,
    FOUND,
    IGNORED,
    LOCATION,
    NOTHING,
    Outcomes,
)
from mpvit.evaluation.result_files import Floats, Ints, Results

ERROR_TYPES = ('class', 'location', 'both', 'duplicate', 'background', 'missed')
_CODES = dict(zip(ERROR_TYPES[:-1], (CLASS, LOCATION, BOTH, DUPLICATE, NOTHING), strict=True))
_RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision


@dataclass(frozen=True)
class ErrorTypes:
    """What each kind of error costs.

    Attributes:
        ap50: AP at an IoU of 0.5, in [0, 1]; NaN if there are no objects.
        gains: By kind (`ERROR_TYPES`), the AP50 that is gained where only these are put right.
        false_positives: AP50 gained without any false positive.
        false_negatives: AP50 gained without the objects that were not found.
    """

    ap50: float
    gains: dict[str, float]
    false_positives: float
    false_negatives: float


def error_types(results: Results, outcomes: Outcomes) -> ErrorTypes:
    """What each kind of error costs.

    Args:
        results: Ground truth and all detections.
        outcomes: Their `judge`.
    """
    label, score = results.detected.label, results.detected.score
    correct = outcomes.outcome == FOUND
    counts = outcomes.outcome != IGNORED
    real = ~results.objects.crowd
    objects = np.bincount(results.objects.label[real], minlength=len(results.names))

    def mean_ap(keep: NDArray[np.bool_], correct: NDArray[np.bool_], label: Ints) -> float:
        return _mean(average_precisions(label[keep], score[keep], correct[keep], objects))

    ap50 = mean_ap(counts, correct, label)
    winner = _winners(results, outcomes)
    gains = {}
    for name, code in _CODES.items():
        wrong = outcomes.outcome == code
        fixed = wrong & winner
        true_label = label.copy()
        true_label[fixed] = results.objects.label[outcomes.target[fixed]]
        gains[name] = mean_ap(counts & (~wrong | fixed), correct | fixed, true_label) - ap50
    fewer = np.bincount(results.objects.label[outcomes.missed], minlength=len(results.names))
    columns = label[counts], score[counts], correct[counts]
    gains['missed'] = _mean(average_precisions(*columns, objects - fewer)) - ap50
    found = np.bincount(label[correct], minlength=len(results.names))
    return ErrorTypes(
        ap50=ap50,
        # below 0 only by the steps at which the precision is read
        gains={name: max(gain, 0.0) for name, gain in gains.items()},
        false_positives=mean_ap(correct, correct, label) - ap50,
        false_negatives=_mean(average_precisions(*columns, found)) - ap50,
    )


def average_precisions(
    label: Ints, score: Floats, correct: NDArray[np.bool_], objects: Ints
) -> Floats:
    """COCO's average precision of each class at one IoU.

    Args:
        label: Class of each detection, ``(N,)``.
        score: In [0, 1], ``(N,)``.
        correct: Which found an object, ``(N,)``.
        objects: How many there are of each class, ``(K,)``.

    Returns:
        In [0, 1]; NaN for a class without objects, ``(K,)``.
    """
    order = np.lexsort((-score, label))
    ends = np.searchsorted(label[order], np.arange(len(objects) + 1))
    values = np.full(len(objects), np.nan)
    for index in np.flatnonzero(objects > 0):
        hits = np.cumsum(correct[order[ends[index] : ends[index + 1]]])
        precision = hits / np.arange(1, len(hits) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or more
        places = np.searchsorted(hits / objects[index], _RECALLS)
        values[index] = np.append(precision, 0.0)[places].mean()
    return values


def _winners(results: Results, outcomes: Outcomes) -> NDArray[np.bool_]:
    """Of the wrong classes and locations at each object that was not found the best score."""
    order = np.argsort(-results.detected.score, kind='stable')
    order = order[np.isin(outcomes.outcome[order], (CLASS, LOCATION))]
    order = order[~outcomes.found[outcomes.target[order]]]
    winner = np.zeros(len(outcomes.outcome), bool)
    winner[order[np.unique(outcomes.target[order], return_index=True)[1]]] = True
    return winner


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float('nan')
