"""How much AP each kind of error costs: TIDE (Bolya et al., ECCV 2020, section 2.3).

The AP at an IoU of 0.5 is computed anew with one kind of error put right by an oracle; the
difference is what that kind costs. `tidecv`, the authors' package, is not maintained; on the same
data this gives its numbers (tests/evaluation/test_error_types.py).
"""

import numpy as np

from mpvit.evaluation.outcomes import CLASS, FOUND, IGNORED, LOCATION, OUTCOMES, Outcomes
from mpvit.evaluation.result_files import Floats, Ints, Mask

ERROR_TYPES = (*OUTCOMES[CLASS:IGNORED], 'missed')
_RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision


def error_types(outcomes: Outcomes) -> dict[str, float]:
    """What each kind of error costs.

    Args:
        outcomes: Of all detections.

    Returns:
        The AP at an IoU of 0.5, in [0, 1], that is gained where only the errors of a kind
        (`ERROR_TYPES`) are put right; then without any false positive ('false_positives'), and
        without the objects that were not found ('false_negatives'). NaN if there are no objects.
    """
    objects, detected = outcomes.results.objects, outcomes.results.detected
    correct, counts = outcomes.outcome == FOUND, outcomes.outcome != IGNORED

    def by_class(rows: Mask) -> Ints:
        return np.bincount(objects.label[rows], minlength=len(outcomes.results.names))

    total = by_class(~objects.crowd)

    def mean_ap(
        keep: Mask = counts,
        correct: Mask = correct,
        label: Ints = detected.label,
        total: Ints = total,
    ) -> float:
        values = average_precisions(label[keep], detected.score[keep], correct[keep], total)
        return float(values[total > 0].mean()) if total.any() else float('nan')

    ap50, winner = mean_ap(), _winners(outcomes)
    true_label = np.append(objects.label, -1)[outcomes.target]
    gains = {}
    for code in range(CLASS, IGNORED):
        wrong = outcomes.outcome == code
        fixed = wrong & winner
        label = np.where(fixed, true_label, detected.label)
        gains[OUTCOMES[code]] = mean_ap(counts & (~wrong | fixed), correct | fixed, label) - ap50
    gains['missed'] = mean_ap(total=total - by_class(outcomes.missed)) - ap50
    gains['false_positives'] = mean_ap(keep=correct) - ap50
    gains['false_negatives'] = mean_ap(total=by_class(outcomes.found)) - ap50
    # below 0 only by the steps at which the precision is read
    return {name: max(gain, 0.0) for name, gain in gains.items()}


def average_precisions(label: Ints, score: Floats, correct: Mask, objects: Ints) -> Floats:
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


def _winners(outcomes: Outcomes) -> Mask:
    """Of the wrong classes and locations at each object that was not found the best score."""
    order = np.argsort(-outcomes.results.detected.score, kind='stable')
    order = order[np.isin(outcomes.outcome[order], (CLASS, LOCATION))]
    order = order[~outcomes.found[outcomes.target[order]]]
    winner = np.zeros(len(outcomes.outcome), bool)
    winner[order[np.unique(outcomes.target[order], return_index=True)[1]]] = True
    return winner
