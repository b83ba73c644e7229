"""COCO's 12 box numbers, under their own names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from mpvit.datasets.annotations import forget
from mpvit.datasets.table import Floats
from mpvit.errors import UserError
from mpvit.evaluation.coco import STATS, Record, detection_records, evaluate_boxes, read_truth


@METRICS.register_module()
class CocoBoxMetric(BaseMetric):
    """COCO's evaluation of boxes, with average recall at 1, 10 and 100 detections.

    Takes the place of mmdet's `CocoMetric`, in a fraction of the time, with the numbers of
    pycocotools (`mpvit.evaluation.coco`). The annotations are in memory only while they are read
    and evaluated, so that dataloader workers, which are forked in between, do not each get a copy.

    Returns all 12 numbers as ``coco/bbox_<name>`` in [0, 1] (-1 where the data has no object of
    the size), rounded to 3 digits, and sends them to the log as a table.

    Args:
        ann_file: Annotation file in COCO format.
        classwise: Also log a table per class and return ``coco/<class>_precision``.
        outfile_prefix: Write the detections to ``<prefix>.bbox.json``, in COCO's result format.
        format_only: Write the detections and evaluate nothing, as for a test server; the file then
            need not have annotations.
        backend_args: Arguments of mmengine's file backend.
        **kwargs: As for mmengine's `BaseMetric`.

    Raises:
        UserError: The annotation file cannot be read, or ``format_only`` has no place to write.
    """

    default_prefix = 'coco'

    def __init__(
        self,
        ann_file: str,
        classwise: bool = False,
        outfile_prefix: str | None = None,
        format_only: bool = False,
        backend_args: Record | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ann_file, self.backend_args = ann_file, backend_args
        self.classwise, self.outfile_prefix = classwise, outfile_prefix
        self.format_only = format_only
        if format_only and outfile_prefix is None:
            raise UserError('CocoBoxMetric: format_only writes detections; set outfile_prefix')
        self._read_truth()  # a broken file should end the run before the first epoch, not after

    def process(self, data_batch: Any, data_samples: Sequence[Record]) -> None:
        """Keep the detections of a batch.

        Args:
            data_batch: Not used.
            data_samples: Samples as dicts; ``pred_instances`` hold ``bboxes``, ``(N, 4)`` as
                ``(x1, y1, x2, y2)``, ``scores`` and ``labels``, ``(N,)``.
        """
        for sample in data_samples:
            found = sample['pred_instances']
            arrays = (found[name].cpu().numpy() for name in ('bboxes', 'scores', 'labels'))
            self.results.append((sample['img_id'], *arrays))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Evaluate what `process` kept.

        Returns:
            The twelve numbers by name, and the precision of each class if ``classwise``; -1 where
            there are no objects.

        Raises:
            UserError: The annotation file has other classes or images than the test set.
        """
        truth = self._read_truth()
        forget()
        category_ids = self._category_ids(truth)
        detections = detection_records(results, category_ids)
        if self.outfile_prefix is not None:
            dump(detections, f'{self.outfile_prefix}.bbox.json')
        if self.format_only:
            return {}
        evaluation = evaluate_boxes(truth, detections, category_ids)
        values = _rounded(evaluation.stats)
        metrics = {f'bbox_{key}': value for key, value in zip(STATS.values(), values, strict=True)}
        logger = MMLogger.get_current_instance()
        logger.info(f'COCO box results:\n{format_table(metrics, "bbox_")}')
        if self.classwise:
            names = {category['id']: category['name'] for category in truth['categories']}
            table = zip(sorted(category_ids), evaluation.class_ap(), strict=True)
            rows = {names[category_id]: _rounded(row) for category_id, row in table}
            logger.info('\n' + _class_table(rows))
            metrics |= {f'{name}_precision': row[0] for name, row in rows.items()}
        return metrics

    def _read_truth(self) -> Record:
        return read_truth(self.ann_file, self.backend_args, unlabelled=self.format_only)

    def _category_ids(self, truth: Record) -> list[int]:
        """The category of each label: that of the classes in the file's order, as in mmdet."""
        classes = self.dataset_meta['classes']
        wanted = set(classes)
        ids = [c['id'] for c in truth['categories'] if c['name'] in wanted]
        if len(ids) != len(classes):
            raise UserError(
                f'annotation file {self.ann_file} of the evaluator has {len(ids)} of the '
                f"dataset's {len(classes)} classes; give evaluator and dataset the same ann_file"
            )
        return ids


def _rounded(values: Floats) -> list[float]:
    return [round(value, 3) for value in np.nan_to_num(values, nan=-1).tolist()]


def _class_table(rows: dict[str, list[float]]) -> str:
    cells = [[name, *(f'{value:.3f}' for value in row)] for name, row in rows.items()]
    return str(AsciiTable([['category', *list(STATS.values())[:6]], *cells]).table)


def format_table(metrics: dict[str, float], prefix: str = 'coco/bbox_') -> str:
    """The 12 numbers as the lines pycocotools prints.

    Args:
        metrics: Numbers by prefix and name.
        prefix: What stands before the names.
    """
    lines = []
    for key in STATS.values():
        name, _, limit = key.partition('@')
        precise = name.startswith('mAP')
        size = {'s': 'small', 'm': 'medium', 'l': 'large'}.get(name.partition('_')[2], 'all')
        iou = {'mAP_50': '0.50', 'mAP_75': '0.75'}.get(name, '0.50:0.95')
        title = 'Precision  (AP)' if precise else 'Recall     (AR)'
        lines.append(
            f' Average {title} @[ IoU={iou:<9} | area={size:>6} | maxDets={limit or 100:>3} ]'
            f' = {metrics[prefix + key]:.3f}'
        )
    return '\n'.join(lines)
