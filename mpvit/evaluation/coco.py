"""COCO's box evaluation: from annotations and detections to the 12 numbers.

The numbers are those of pycocotools, to the last bit, computed by vernier, a rewrite in Rust
(`tests/evaluation/test_coco_numbers.py`).
"""

import contextlib
import functools
import importlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from mpvit.datasets.annotations import collector_off, read_annotations
from mpvit.errors import UserError

LIMITS = (1, 10, 100)  # detections per image and class at which COCO measures recall
Record = dict[str, Any]
Result = tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class BoxEvaluation:
    """What COCO's evaluation gives for boxes.

    Attributes:
        stats: The 12 numbers in COCO's order, unrounded; -1 where there are no objects.
        precision: Precision by IoU threshold (10, 0.5 to 0.95), recall (101, 0 to 1), class
            (ascending id), size (all, small, medium, large) and limit of detections (`LIMITS`);
            -1 where there are no objects.
        category_ids: The ids along the class axis.
    """

    stats: NDArray[np.float64]
    precision: NDArray[np.float64]
    category_ids: list[int]

    def class_ap(self) -> NDArray[np.float64]:
        """Average precision of each class: the first six of the 12 numbers.

        Returns:
            In [0, 1]; NaN where there are no objects, ``(K, 6)``.
        """
        precision = np.where(self.precision < 0, np.nan, self.precision)[..., -1]
        parts = [precision[..., 0], precision[:1, ..., 0], precision[5:6, ..., 0]]
        parts += [precision[..., size] for size in (1, 2, 3)]
        return np.stack([part.mean(axis=(0, 1)) for part in parts], axis=1)


@collector_off()
def read_truth(path: str, backend_args: Record | None = None, unlabelled: bool = False) -> Record:
    """Read what box evaluation needs of an annotation file, without the masks.

    Args:
        path: File in COCO format. An annotation without ``iscrowd`` is no crowd, and one without
            a number for its ``area`` has that of its box.
        backend_args: Arguments of mmengine's file backend.
        unlabelled: Accept a file without annotations, such as that of COCO's test-dev.

    Returns:
        ``images``, ``categories`` and ``annotations``, as in the file but for the ids of the
        annotations, which count from 1; an id of 0 means 'unmatched' to the evaluation.

    Raises:
        UserError: The file is no JSON or not in COCO format.
    """
    table = read_annotations(path, unlabelled=unlabelled, backend_args=backend_args)
    table.refuse_odd_boxes(table.listed)
    rows = zip(table.annotations, table.boxes.tolist(), table.areas.tolist(), strict=True)
    return dict(
        images=[dict(id=image['id']) for image in table.images],
        categories=[dict(id=entry['id'], name=entry['name']) for entry in table.categories],
        annotations=[
            dict(
                id=number,
                image_id=entry['image_id'],
                category_id=entry['category_id'],
                bbox=box,
                area=area,
                iscrowd=int(bool(entry.get('iscrowd'))),
            )
            for number, (entry, box, area) in enumerate(rows, start=1)
        ],
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
    images = np.repeat(np.asarray(image_ids), [len(score) for score in scores])
    categories = np.asarray(category_ids)[np.concatenate(labels).astype(int)]
    columns = (images, corners, np.concatenate(scores).astype(np.float64), categories)
    return [
        dict(image_id=image, bbox=box, score=score, category_id=category)
        for image, box, score, category in zip(*(c.tolist() for c in columns), strict=True)
    ]


def evaluate_boxes(
    truth: Record, detections: Sequence[Record], category_ids: Sequence[int], library: str = ''
) -> BoxEvaluation:
    """Evaluate detections on all images of the ground truth.

    Args:
        truth: As `read_truth` returns it. Annotations on images or of categories that it does not
            list do not count.
        detections: As `detection_records` returns them.
        category_ids: The categories that count.
        library: 'vernier' or 'pycocotools'. By default vernier, and pycocotools, after a warning,
            where vernier is not installed or refuses the data, as it does a score of NaN.

    Raises:
        UserError: A detection is on an image that the ground truth does not have.
    """
    image_ids, counted = {image['id'] for image in truth['images']}, set(category_ids)
    unknown = {detection['image_id'] for detection in detections} - image_ids
    if unknown:
        raise UserError(
            f'{len(unknown)} images of the test set, such as id {min(unknown)}, are not in the '
            "evaluator's annotation file; give evaluator and dataset the same ann_file"
        )
    known = dict(
        images=[dict(id=image_id) for image_id in image_ids],
        categories=[entry for entry in truth['categories'] if entry['id'] in counted],
        annotations=[
            entry
            for entry in truth['annotations']
            if entry['image_id'] in image_ids and entry['category_id'] in counted
        ],
    )
    chosen = library or _library()
    try:
        return _evaluated(chosen, known, detections, sorted(counted))
    except ValueError as error:
        if library or chosen == 'pycocotools':
            raise
        warnings.warn(
            f'vernier does not take these annotations or detections ({error}); pycocotools '
            'evaluates them, in many times as long',
            stacklevel=2,
        )
        return _evaluated('pycocotools', known, detections, sorted(counted))


def _evaluated(
    library: str, truth: Record, detections: Sequence[Record], category_ids: list[int]
) -> BoxEvaluation:
    module = 'vernier' if library == 'vernier' else 'pycocotools.cocoeval'
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
        evaluation = importlib.import_module(module).COCOeval(objects, found, 'bbox')
        evaluation.params.catIds = category_ids
        evaluation.params.maxDets = list(LIMITS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = np.array(evaluation.stats[:12], np.float64)
    return BoxEvaluation(stats, evaluation.eval['precision'], category_ids)


@functools.cache
def _library() -> str:
    try:
        import vernier  # noqa: F401
    except ImportError as error:
        warnings.warn(
            f'vernier is not usable ({error}); pycocotools gives the same numbers in many times '
            'as long. To be quick: pip install vernier',
            stacklevel=2,
        )
        return 'pycocotools'
    return 'vernier'
