"""The whole analysis of a set of detections."""

import json
from typing import Any

import numpy as np

from mpvit.evaluation.coco import STATS, BoxEvaluation, evaluate_boxes, records
from mpvit.evaluation.error_types import ERROR_TYPES, error_types
from mpvit.evaluation.outcomes import (
    CLASS,
    FOUND,
    IGNORED,
    Outcomes,
    confusion,
    image_counts,
    judge,
)
from mpvit.evaluation.result_files import Floats, Results


class Analysis:
    """What is to be known about a set of detections.

    Args:
        results: Ground truth and all detections.
        threshold: Score from which a detection is shown and counted in all but AP.

    Attributes:
        stats: COCO's 12 numbers (`STATS`), in [0, 1]; NaN where there are no objects.
        precision: By IoU threshold (10, 0.5 to 0.95), recall (101, 0 to 1) and class, ``(10, 101,
            K)``; NaN for a class without objects.
        class_ap: AP of each class, the first six of `STATS`, ``(K, 6)``; NaN where there are no
            objects.
        error_gains: What each kind of error costs, as `error_types` says.
        shown: The detections from the threshold on, and what became of them.
        confusion: True by detected class, with the background, ``(K + 1, K + 1)``.
        images: Objects found, those not found, and wrong detections of each image, ``(I, 3)``.
        sweep: Score, and precision, recall and F1 from it on, over all classes, ``(S, 4)``.
    """

    def __init__(self, results: Results, threshold: float = 0.3) -> None:
        self.results, self.threshold = results, threshold
        evaluation, outcomes = _evaluated(results), judge(results)
        self.stats: dict[str, float] = dict(zip(STATS, evaluation.stats.tolist(), strict=True))
        self.precision = evaluation.precision[:, :, :, 0, -1]
        self.class_ap = evaluation.class_ap()
        self.error_gains = error_types(outcomes)
        self.shown = outcomes.above(threshold)
        self.confusion = confusion(self.shown)
        self.images = image_counts(self.shown)
        self.sweep = _sweep(outcomes)

    @property
    def best_threshold(self) -> float:
        """The score from which F1 is highest; NaN without detections."""
        if not len(self.sweep) or np.isnan(self.sweep[:, 3]).all():
            return float('nan')
        return float(self.sweep[np.nanargmax(self.sweep[:, 3]), 0])

    def ranked_images(self, count: int) -> dict[str, list[int]]:
        """The worst and the best images.

        Args:
            count: How many of either at most.

        Returns:
            'worst': by rising F1, of equal ones those with the most errors first, without those
            that have none. 'best': by falling F1, of equal ones those with the most objects first,
            without those in which nothing was found.
        """
        found, errors = self.images[:, 0], self.images[:, 1:].sum(1)
        with np.errstate(invalid='ignore'):
            f1 = 2 * found / (2 * found + errors)
        worst, best = np.lexsort((-errors, f1)), np.lexsort((-found, -f1))
        worst, best = worst[errors[worst] > 0], best[found[best] > 0]
        return dict(worst=worst[:count].tolist(), best=best[:count].tolist())

    def error_counts(self) -> dict[str, int]:
        """How many detections, from the threshold on, are wrong and how, and missed objects."""
        counts = np.bincount(self.shown.outcome, minlength=IGNORED)[CLASS:IGNORED].tolist()
        return dict(zip(ERROR_TYPES, [*counts, int(self.shown.missed.sum())], strict=True))

    def class_rows(self) -> list[dict[str, Any]]:
        """One record a class: name, objects, AP; precision, recall from the threshold on."""
        objects, label = self.results.objects, self.shown.results.detected.label
        total, found, counted = (
            np.bincount(labels, minlength=len(self.results.names))
            for labels in (
                objects.label[~objects.crowd],
                label[self.shown.outcome == FOUND],
                label[self.shown.outcome != IGNORED],
            )
        )
        with np.errstate(invalid='ignore'):
            precision, recall = found / counted, found / total
        return records(
            name=self.results.names,
            label=range(len(total)),
            objects=total,
            **dict(zip(STATS, self.class_ap.T, strict=False)),
            precision=precision,
            recall=recall,
        )

    def as_record(self) -> dict[str, Any]:
        """All numbers, as plain values for JSON; None where there is none."""
        record = dict(
            images=len(self.results.files),
            threshold=self.threshold,
            best_threshold=self.best_threshold,
            stats=self.stats,
            classes=self.class_rows(),
            error_gains_ap50=self.error_gains,
            error_counts=self.error_counts(),
            confusion=dict(
                classes=[*self.results.names, 'background'], counts=self.confusion.tolist()
            ),
        )
        plain: dict[str, Any] = json.loads(json.dumps(record), parse_constant=lambda nan: None)
        return plain


def _evaluated(results: Results) -> BoxEvaluation:
    objects, detected, labels = results.objects, results.detected, range(len(results.names))
    truth = dict(
        images=records(id=range(len(results.files))),
        categories=records(id=labels, name=results.names),
        annotations=records(
            id=range(1, len(objects.label) + 1),
            image_id=objects.image,
            category_id=objects.label,
            bbox=objects.boxes,
            area=objects.area,
            iscrowd=objects.crowd,
        ),
    )
    detections = records(
        image_id=detected.image,
        category_id=detected.label,
        bbox=detected.boxes,
        score=detected.score,
    )
    return evaluate_boxes(truth, detections, labels)


def _sweep(outcomes: Outcomes, points: int = 200) -> Floats:
    """Score, precision, recall and F1 at falling scores."""
    objects, detected = outcomes.results.objects, outcomes.results.detected
    order = np.argsort(-detected.score, kind='stable')
    order = order[outcomes.outcome[order] != IGNORED]
    found = np.cumsum(outcomes.outcome[order] == FOUND)
    shown = np.arange(1, len(found) + 1)
    total = (~objects.crowd).sum()
    with np.errstate(invalid='ignore', divide='ignore'):
        columns = found / shown, found / total, 2 * found / (shown + total)
    table = np.column_stack([detected.score[order], *columns])
    if len(table) <= points:
        return table
    # evenly over the scores, not the detections, most of which have low ones
    wanted = np.linspace(table[0, 0], table[-1, 0], points)
    return table[np.unique(np.searchsorted(-table[:, 0], -wanted, side='right') - 1)]
