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
from mpvit.evaluation.coco import detection_records, evaluate_boxes, read_truth
from mpvit.evaluation.coco_metric import METRICS

Call = Callable[[], Any]


def rows(quick: bool) -> list[Row]:
    """Whole metrics, from the model's results to the numbers, and their parts."""
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    images, rounds = (50, 1) if quick else (5000, 3)
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder) / 'truth.json', images, rounds)


def measure(path: Path, images: int, rounds: int) -> list[Row]:
    """Time whole metrics and their parts in turn, in CPU seconds.

    Args:
        path: Where to write the ground truth.
        images: Images in the set.
        rounds: How often each is timed.
    """
    content = coco_truth(images)
    path.write_text(json.dumps(content))
    results = coco_results(content)
    truth = read_truth(str(path))
    ids = [category['id'] for category in truth['categories']]
    records = detection_records(results, ids)
    parts: dict[str, tuple[Call, Call, float | None]] = {
        f'COCO evaluation, {images} images': (
            metric('CocoBoxMetric', path, results),
            metric('CocoMetric', path, results),
            5,
        ),
        'of it the evaluation alone': (
            lambda: evaluate_boxes(truth, records, ids, 'vernier'),
            lambda: evaluate_boxes(truth, records, ids, 'pycocotools'),
            None,
        ),
        'of it results to records': (
            lambda: detection_records(results, ids),
            through_json('CocoMetric', path, results),
            None,
        ),
    }
    table = []
    for name, (ours, theirs, target) in parts.items():
        taken = [(cpu_seconds(ours), cpu_seconds(theirs)) for _ in range(rounds)]
        pairs = Pairs(*map(list, zip(*taken, strict=True)))
        note = f'CPU seconds; {len(truth["annotations"])} objects, {len(records)} detections'
        table.append(pairs.row(name, "mmdet's metric on pycocotools", target, note))
    return table


def cpu_seconds(call: Call) -> float:
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


def through_json(kind: str, path: Path, results: list[tuple]) -> Callable[[], Any]:
    """A call that does what mmdet does before it evaluates: write JSON, read it, index it."""
    evaluator = build(kind, path)
    evaluator.cat_ids = evaluator._coco_api.get_cat_ids()
    names = ('img_id', 'bboxes', 'scores', 'labels')
    found = [
        dict(zip(names, (image, boxes, scores, labels.astype(int)), strict=True))
        for image, boxes, scores, labels in results
    ]

    def call() -> Any:
        files = evaluator.results2json(found, str(path.with_name('results')))
        return evaluator._coco_api.loadRes(files['bbox'])

    return call


def build(kind: str, path: Path) -> Any:
    """A metric on the ground truth."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = METRICS.build(dict(type=kind, ann_file=str(path)))
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
