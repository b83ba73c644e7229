"""The whole analysis of a set of detections."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpvit.evaluation.coco import BoxEvaluation, Record, evaluate_boxes
from mpvit.evaluation.error_types import ERROR_TYPES, ErrorTypes, error_types
from mpvit.evaluation.image_scores import ImageScores, score_images
from mpvit.evaluation.outcomes import FOUND, IGNORED, OUTCOMES, Outcomes, confusion, judge
from mpvit.evaluation.result_files import Detected, Floats, Ints, Objects, Results

AP_COLUMNS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
STATS = (*AP_COLUMNS, 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl')


@dataclass(frozen=True)
class Analysis:
    """What is to be known about a set of detections.

    Attributes:
        results: Ground truth and all detections.
        threshold: Score from which a detection is shown and counted in what follows but AP.
        stats: COCO's 12 numbers (`STATS`), in [0, 1]; NaN where there are no objects.
        precision: By IoU threshold (10, 0.5 to 0.95), recall (101, 0 to 1) and class, ``(10, 101,
            K)``; NaN for a class without objects.
        class_ap: AP of each class (`AP_COLUMNS`), ``(K, 6)``; NaN where there are no objects.
        errors: What each kind of error costs.
        shown: Ground truth and the detections from the threshold on.
        outcomes: Of those.
        confusion: True by detected class, with the background, ``(K + 1, K + 1)``.
        images: How well each image went.
        sweep: Score, and precision, recall and F1 from it on, over all classes, ``(S, 4)``.
    """

    results: Results
    threshold: float
    stats: dict[str, float]
    precision: Floats
    class_ap: Floats
    errors: ErrorTypes
    shown: Results
    outcomes: Outcomes
    confusion: Ints
    images: ImageScores
    sweep: Floats

    @property
    def best_threshold(self) -> float:
        """The score from which F1 is highest; NaN without detections."""
        if not len(self.sweep) or np.isnan(self.sweep[:, 3]).all():
            return float('nan')
        return float(self.sweep[np.nanargmax(self.sweep[:, 3]), 0])

    def error_counts(self) -> dict[str, int]:
        """How many detections, from the threshold on, are wrong and how, and missed objects."""
        counts = {
            name: int((self.outcomes.outcome == OUTCOMES.index(name)).sum())
            for name in ERROR_TYPES[:-1]
        }
        return counts | dict(missed=int(self.outcomes.missed.sum()))

    def class_rows(self) -> list[dict[str, Any]]:
        """One record a class: name, objects, AP; precision, recall from the threshold on."""
        objects, shown = self.results.objects, self.shown.detected
        size = len(self.results.names)
        total = np.bincount(objects.label[~objects.crowd], minlength=size)
        found = np.bincount(shown.label[self.outcomes.outcome == FOUND], minlength=size)
        counted = np.bincount(shown.label[self.outcomes.outcome != IGNORED], minlength=size)
        with np.errstate(invalid='ignore'):
            precision, recall = found / counted, found / total
        return [
            dict(
                name=name,
                label=label,
                objects=int(total[label]),
                **dict(zip(AP_COLUMNS, self.class_ap[label].tolist(), strict=True)),
                precision=float(precision[label]),
                recall=float(recall[label]),
            )
            for label, name in enumerate(self.results.names)
        ]

    def as_record(self) -> dict[str, Any]:
        """All numbers, as plain values for JSON; None where there is none."""
        errors = self.errors
        gains = errors.gains | dict(
            false_positives=errors.false_positives, false_negatives=errors.false_negatives
        )
        record = dict(
            images=len(self.results.files),
            threshold=self.threshold,
            best_threshold=self.best_threshold,
            stats=self.stats,
            classes=self.class_rows(),
            error_gains_ap50=gains,
            error_counts=self.error_counts(),
            confusion=dict(
                classes=[*self.results.names, 'background'], counts=self.confusion.tolist()
            ),
        )
        plain: dict[str, Any] = _without_nan(record)
        return plain


def analyse(results: Results, threshold: float = 0.3) -> Analysis:
    """Analyse a set of detections.

    Args:
        results: Ground truth and detections.
        threshold: Score from which a detection counts in confusions, counts and pictures.
    """
    evaluation = _evaluated(results)
    precision = evaluation.precision[:, :, :, 0, -1]
    outcomes = judge(results)
    shown = results.above(threshold)
    shown_outcomes = judge(shown)
    stats = np.where(evaluation.stats < 0, np.nan, evaluation.stats)
    return Analysis(
        results=results,
        threshold=threshold,
        stats=dict(zip(STATS, stats.tolist(), strict=True)),
        precision=np.where(precision < 0, np.nan, precision),
        class_ap=evaluation.class_ap(),
        errors=error_types(results, outcomes),
        shown=shown,
        outcomes=shown_outcomes,
        confusion=confusion(shown, shown_outcomes),
        images=score_images(shown, shown_outcomes),
        sweep=_sweep(results, outcomes),
    )


def _evaluated(results: Results) -> BoxEvaluation:
    objects, detected = results.objects, results.detected
    truth: Record = dict(
        images=[dict(id=index) for index in range(len(results.files))],
        categories=[dict(id=label, name=name) for label, name in enumerate(results.names)],
        annotations=[
            dict(id=number, image_id=image, category_id=label, bbox=box, area=area, iscrowd=crowd)
            for number, (image, label, box, area, crowd) in enumerate(_rows(objects), start=1)
        ],
    )
    detections = [
        dict(image_id=image, category_id=label, bbox=box, score=score)
        for image, label, box, score in _rows(detected)
    ]
    return evaluate_boxes(truth, detections, range(len(results.names)))


def _rows(columns: Objects | Detected) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.tolist() for column in vars(columns).values()), strict=True)


def _sweep(results: Results, outcomes: Outcomes, points: int = 200) -> Floats:
    """Score, precision, recall and F1 at falling scores."""
    counts = outcomes.outcome != IGNORED
    score = results.detected.score[counts]
    order = np.argsort(-score, kind='stable')
    found = np.cumsum(outcomes.outcome[counts][order] == FOUND)
    shown = np.arange(1, len(found) + 1)
    total = (~results.objects.crowd).sum()
    with np.errstate(invalid='ignore', divide='ignore'):
        table = np.stack(
            [score[order], found / shown, found / total, 2 * found / (shown + total)], axis=1
        )
    if len(table) <= points:
        return table
    # evenly over the scores, not the detections, most of which have low ones
    wanted = np.linspace(table[0, 0], table[-1, 0], points)
    return table[np.unique(np.searchsorted(-table[:, 0], -wanted, side='right') - 1)]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
