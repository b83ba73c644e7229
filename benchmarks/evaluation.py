"""COCO's box evaluation, ours against mmdet's, which calls pycocotools: seconds on the CPU.

Both get the same made-up detections, in turn in one process, and go from collected results to the
twelve numbers.
"""

import contextlib
import io
import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks._synthetic import coco_results, coco_truth
from benchmarks._timing import Pairs, Row, main
from mpvit.evaluation.coco_metric import METRICS


def rows(quick: bool) -> list[Row]:
    """Whole metrics, from the model's results to the numbers."""
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    images, rounds = (50, 1) if quick else (5000, 3)
    content = coco_truth(images)
    results = coco_results(content)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'truth.json'
        path.write_text(json.dumps(content))
        ours, theirs = (metric(kind, path, results) for kind in ('CocoBoxMetric', 'CocoMetric'))
        taken = [(cpu_seconds(ours), cpu_seconds(theirs)) for _ in range(rounds)]
    pairs = Pairs(*map(list, zip(*taken, strict=True)))
    found = sum(len(scores) for _, _, scores, _ in results)
    note = f'CPU seconds; {len(content["annotations"])} objects, {found} detections'
    what, against = f'COCO evaluation, {images} images', "mmdet's metric on pycocotools"
    return [pairs.row(what, against, 5, note)]


def cpu_seconds(call: Callable[[], Any]) -> float:
    """CPU time of a call in seconds, without what it prints."""
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        call()
    return time.process_time() - start


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


if __name__ == '__main__':
    main(rows, __doc__)
