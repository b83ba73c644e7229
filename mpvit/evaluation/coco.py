"""COCO's box evaluation: from annotations and detections to the 12 numbers.

The numbers are those of pycocotools, to the last bit, computed by vernier, a rewrite in Rust
(`tests/evaluation/test_coco_numbers.py`).
"""

import contextlib
import importlib
import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from mpvit.datasets.annotations import read_annotations
from mpvit.datasets.table import Floats, collector_off
from mpvit.errors import UserError

#: COCO's 12 numbers in its order: their short names, and those in the metrics of an evaluation.
STATS = dict(AP='mAP', AP50='mAP_50', AP75='mAP_75', APs='mAP_s', APm='mAP_m', APl='mAP_l')
STATS |= dict(AR1='AR@1', AR10='AR@10', AR100='AR@100')
STATS |= dict(ARs='AR_s@100', ARm='AR_m@100', ARl='AR_l@100')
LIMITS = (1, 10, 100)  # detections per image and class at which COCO measures recall
Record = dict[str, Any]
Result = tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class BoxEvaluation:
    """What COCO's evaluation gives for boxes, in [0, 1]; NaN where there are no objects.

    Attributes:
        stats: The 12 numbers in the order of `STATS`, unrounded.
        precision: Precision by IoU threshold (10, 0.5 to 0.95), recall (101, 0 to 1), class
            (ascending id), size (all, small, medium, large) and limit of detections (`LIMITS`).
    """

    stats: Floats
    precision: Floats

    def class_ap(self) -> Floats:
        """Average precision of each class: the first six of the 12 numbers, ``(K, 6)``."""
        precision = self.precision[..., -1]
        parts = [precision[..., 0], precision[:1, ..., 0], precision[5:6, ..., 0]]
        parts += [precision[..., size] for size in (1, 2, 3)]
        return np.stack([part.mean(axis=(0, 1)) for part in parts], axis=1)


@collector_off()
def records(**columns: Iterable[Any]) -> list[Record]:
    """Columns as one dict a row, with plain numbers in place of NumPy's."""
    values = [c.tolist() if isinstance(c, np.ndarray) else c for c in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


@collector_off()
def read_truth(path: str, backend_args: Record | None = None, unlabelled: bool = False) -> Record:
    """Read what box evaluation needs of an annotation file, without the masks.

    Args:
        path: File in COCO format. An annotation without ``iscrowd`` is no crowd, and one without
            a number for its ``area`` has that of its box.
        backend_args: Arguments of mmengine's file backend.
        unlabelled: Accept a file without annotations, such as that of COCO's test-dev.

    Returns:
        ``images``, ``categories`` and ``annotations``, as in the file but for images that are
        listed twice, annotations of an image or category that is not listed, and the ids of the
        annotations, which count from 1; an id of 0 means 'unmatched' to the evaluation.

    Raises:
        UserError: The file is no JSON or not in COCO format.
    """
    table = read_annotations(path, unlabelled=unlabelled, backend_args=backend_args)
    table.refuse_odd_boxes(table.listed)
    rows = np.flatnonzero(table.listed)
    return dict(
        images=records(id=dict.fromkeys(table.image_ids.tolist())),
        categories=[dict(id=entry['id'], name=entry['name']) for entry in table.categories],
        annotations=records(
            id=range(1, len(rows) + 1),
            image_id=table.image_ids[table.image_row[rows]],
            category_id=table.category_ids[table.category_row[rows]],
            bbox=table.boxes[rows],
            area=table.areas[rows],
            iscrowd=table.crowd[rows],
        ),
    )


def detection_records(results: Sequence[Result], category_ids: Sequence[int]) -> list[Record]:
    """Detections in COCO's result format.

    Args:
        results: Per image its id, boxes ``(N, 4)`` as ``(x1, y1, x2, y2)`` in pixels, scores
            ``(N,)``, and labels ``(N,)``, which are indices into ``category_ids``.
        category_ids: Category of each label.

    Returns:
        A record per detection: ``image_id``, ``bbox`` as ``(x, y, width, height)``, ``score`` and
        ``category_id``.
    """
    if not results:
        return []
    image_ids, boxes, scores, labels = zip(*results, strict=True)
    corners = np.concatenate(boxes).astype(np.float64)  # before subtracting, as mmdet does
    corners[:, 2:] -= corners[:, :2]
    return records(
        image_id=np.repeat(np.asarray(image_ids), [len(score) for score in scores]),
        bbox=corners,
        score=np.concatenate(scores).astype(np.float64),
        category_id=np.asarray(category_ids)[np.concatenate(labels).astype(int)],
    )


def evaluate_boxes(
    truth: Record, detections: Sequence[Record], category_ids: Sequence[int], library: str = ''
) -> BoxEvaluation:
    """Evaluate detections on all images of the ground truth.

    Args:
        truth: As `read_truth` returns it.
        detections: As `detection_records` returns them.
        category_ids: The categories that count.
        library: 'vernier' or 'pycocotools'. By default vernier, and pycocotools, after a warning,
            where vernier is not installed or refuses the data, as it does a score of NaN.

    Raises:
        UserError: A detection is on an image that the ground truth does not have.
    """
    unknown = {found['image_id'] for found in detections} - {im['id'] for im in truth['images']}
    if unknown:
        raise UserError(
            f'{len(unknown)} images of the test set, such as id {min(unknown)}, are not in the '
            "evaluator's annotation file; give evaluator and dataset the same ann_file"
        )
    try:
        return _evaluated(library or 'vernier', truth, detections, sorted(category_ids))
    except (ImportError, ValueError) as error:
        if library:
            raise
        warnings.warn(
            f'vernier does not evaluate these detections ({error}); pycocotools gives the same '
            'numbers in many times as long',
            stacklevel=2,
        )
        return _evaluated('pycocotools', truth, detections, sorted(category_ids))


def _evaluated(
    library: str, truth: Record, detections: Sequence[Record], category_ids: list[int]
) -> BoxEvaluation:
    module = importlib.import_module('vernier' if library == 'vernier' else 'pycocotools.cocoeval')
    objects, found = COCO(), COCO()
    objects.dataset, found.dataset = truth, dict(truth, annotations=detections)
    with contextlib.redirect_stdout(io.StringIO()):  # progress and a table, on every call
        objects.createIndex()
        if library == 'pycocotools':  # vernier needs no index, which would be half of its time
            found.dataset['annotations'] = [  # ``loadRes`` would add a polygon to each
                dict(detection, id=number, area=detection['bbox'][2] * detection['bbox'][3])
                for number, detection in enumerate(detections, start=1)
            ]
            found.createIndex()
        evaluation = module.COCOeval(objects, found, 'bbox')
        evaluation.params.catIds = category_ids
        evaluation.params.maxDets = list(LIMITS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = np.array(evaluation.stats[:12], np.float64), evaluation.eval['precision']
    return BoxEvaluation(*(np.where(values < 0, np.nan, values) for values in numbers))
