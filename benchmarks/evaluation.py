"""COCO's box evaluation, ours against mmdet's, which calls pycocotools: seconds on the CPU.

Run `python benchmarks/evaluation.py`. Both get the same made-up detections, in turn in one
process, and go from collected results to the twelve numbers. CPU seconds do not depend much on
what else the machine does.
"""

import argparse
import contextlib
import io
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _synthetic import coco_results, coco_truth

from mpvit.engine.coco_evaluation import detection_records, evaluate_boxes, read_truth
from mpvit.engine.coco_metric import METRICS


def main() -> None:
    """Parse arguments, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=5000, help='size of the set (default: 5000)')
    parser.add_argument('--rounds', type=int, default=3, help='how often each runs (default: 3)')
    arguments = parser.parse_args()
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder) / 'truth.json', arguments.images, arguments.rounds)


def measure(path: Path, images: int, rounds: int) -> None:
    """Time whole metrics and their parts, and print one table.

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
    rows: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        'metric': (metric('CocoMetric', path, results), metric('CocoBoxMetric', path, results)),
        'evaluation alone': (
            lambda: evaluate_boxes(truth, records, ids, 'pycocotools'),
            lambda: evaluate_boxes(truth, records, ids, 'faster-coco-eval'),
        ),
        'results to records': (
            through_json('CocoMetric', path, results),
            lambda: detection_records(results, ids),
        ),
    }
    objects = len(truth['annotations'])
    print(f'{images} images, {objects} objects, {len(records)} detections, {rounds} rounds; CPU s')
    print('| part | pycocotools, mmdet | ours | ratio | spread |\n|---|---|---|---|---|')
    for name, pair in rows.items():
        taken = [[cpu_seconds(call) for call in pair] for _ in range(rounds)]
        theirs, ours = (statistics.median(column) for column in zip(*taken, strict=True))
        ratios = [a / b for a, b in taken]
        middle = statistics.median(ratios)
        print(
            f'| {name} | {theirs:.1f} | {ours:.1f} | {middle:.1f} | '
            f'{min(ratios):.1f}-{max(ratios):.1f} |'
        )
        sys.stdout.flush()


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
    main()
