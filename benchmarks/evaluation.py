"""COCO's box evaluation, ours against mmdet's, which calls pycocotools.

Both get the same made-up detections and go from collected results to the twelve numbers.
"""

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import mpvit.register  # noqa: F401
from benchmarks._synthetic import coco_results, coco_truth
from benchmarks._timing import Action, Contender, Row, in_turn
from mpvit.evaluation.coco_metric import METRICS


def rows(quick: bool) -> Iterator[Row]:
    """Whole metrics, from the model's results to the numbers."""
    images = 50 if quick else 2000
    content = coco_truth(images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'truth.json'
        path.write_text(json.dumps(content))
        kinds = dict(ours='CocoBoxMetric', theirs='CocoMetric')
        contenders = {name: Contender(action_of, (kind, path)) for name, kind in kinds.items()}
        turns = in_turn(contenders, 2, 60)
    found = sum(len(scores) for _, _, scores, _ in coco_results(content))
    note = f'{len(content["annotations"])} objects, {found} detections'
    what, against = f'COCO evaluation, {images} images', "mmdet's metric on pycocotools"
    yield turns.row(what, against, ('ours', 'theirs'), 5, note)


def action_of(kind: str, path: Path) -> Action:
    """What takes made-up detections through a metric, without what it prints."""
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    call = metric(kind, path, coco_results(json.loads(path.read_text())))

    def run() -> dict[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):
            return call()

    return run


def metric(kind: str, path: Path, results: list[tuple]) -> Callable[[], dict[str, float]]:
    """A call that takes results through a metric, from the model's output to the numbers."""
    samples = as_samples(results)

    def call() -> dict[str, float]:
        evaluator = build(kind, path)
        evaluator.process({}, samples)
        numbers: dict[str, float] = evaluator.evaluate(size=len(samples))
        return numbers

    return call


def build(kind: str, path: Path, **options: Any) -> Any:
    """A metric on the ground truth."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = METRICS.build(dict(type=kind, ann_file=str(path), **options))
    names = [category['name'] for category in json.loads(path.read_text())['categories']]
    evaluator.dataset_meta = dict(classes=names)
    return evaluator


def as_samples(results: list[tuple]) -> list[dict[str, Any]]:
    """Results as the model hands them to the metric."""
    return [
        dict(
            img_id=image,
            ori_shape=(480, 640),
            pred_instances=dict(
                bboxes=torch.from_numpy(boxes),
                scores=torch.from_numpy(scores),
                labels=torch.from_numpy(labels).long(),
            ),
        )
        for image, boxes, scores, labels in results
    ]
