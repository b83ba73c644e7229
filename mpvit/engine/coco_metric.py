"""COCO's 12 box numbers, under their own names."""

import contextlib
import io
from typing import Any

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

# The twelve numbers in COCO's order: our key, then mmdet's key for the same place in the list.
# mmdet writes 100, 300 and 1000 into its recall keys whatever the limits are.
_KEYS = {
    'mAP': 'mAP',
    'mAP_50': 'mAP_50',
    'mAP_75': 'mAP_75',
    'mAP_s': 'mAP_s',
    'mAP_m': 'mAP_m',
    'mAP_l': 'mAP_l',
    'AR@1': 'AR@100',
    'AR@10': 'AR@300',
    'AR@100': 'AR@1000',
    'AR_s@100': 'AR_s@1000',
    'AR_m@100': 'AR_m@1000',
    'AR_l@100': 'AR_l@1000',
}


@METRICS.register_module()
class CocoBoxMetric(CocoMetric):
    """mmdet's `CocoMetric` for boxes, with average recall at 1, 10 and 100 detections as in COCO.

    Returns all 12 numbers as ``coco/bbox_<name>`` in [0, 1] (-1 where the data has no object of
    the size), rounded to 3 digits, and sends pycocotools' table to the log instead of only to
    the terminal.

    Args:
        ann_file: Annotation file in COCO format.
        classwise: Also log a table per class and return ``coco/<class>_precision``.
        **kwargs: As for `CocoMetric`.
    """

    def __init__(self, ann_file: str, classwise: bool = False, **kwargs: Any) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools' loading messages
            super().__init__(
                ann_file=ann_file,
                metric='bbox',
                classwise=classwise,
                proposal_nums=(1, 10, 100),
                metric_items=list(_KEYS.values()),
                **kwargs,
            )

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Evaluate all collected results.

        Args:
            results: Pairs of ground truth and detections, as collected by `CocoMetric.process`.

        Returns:
            The twelve numbers by name, and the precision of each class if ``classwise``; -1 where
            there are no objects.
        """
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            metrics = super().compute_metrics(results)
        table = [line for line in printed.getvalue().splitlines() if line.startswith(' Average')]
        MMLogger.get_current_instance().info('\n'.join(['COCO box results:', *table]))
        renamed = {f'bbox_{key}': metrics.pop(f'bbox_{old}', -1.0) for key, old in _KEYS.items()}
        # a class without objects has no precision; nan would not be valid JSON
        return {k: -1.0 if v != v else v for k, v in {**renamed, **metrics}.items()}


def format_table(metrics: dict[str, float]) -> str:
    """The 12 numbers as the lines pycocotools prints.

    Args:
        metrics: Numbers under ``coco/bbox_<name>``.
    """
    lines = []
    for key in _KEYS:
        name, _, limit = key.partition('@')
        precise = name.startswith('mAP')
        size = {'s': 'small', 'm': 'medium', 'l': 'large'}.get(name.partition('_')[2], 'all')
        iou = {'mAP_50': '0.50', 'mAP_75': '0.75'}.get(name, '0.50:0.95')
        title = 'Precision  (AP)' if precise else 'Recall     (AR)'
        lines.append(
            f' Average {title} @[ IoU={iou:<9} | area={size:>6} | maxDets={limit or 100:>3} ]'
            f' = {metrics[f"coco/bbox_{key}"]:.3f}'
        )
    return '\n'.join(lines)
