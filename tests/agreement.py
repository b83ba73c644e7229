"""How far detections of a detector in another precision agree with those in float32.

``python tests/agreement.py`` prints the table of docs/precision.md; it takes minutes.
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.structures import InstanceData
from parity_detector import CONFIGS, DetectorParity
from torchvision.ops import box_iou

from mpvit.inference import prepare


def agreement(
    references: Sequence[InstanceData], others: Sequence[InstanceData], overlap: float = 0.9
) -> tuple[float, float]:
    """Share of detections that have a counterpart, and how far the scores of those differ.

    Args:
        references: Detections of each image, best first.
        others: The same from the other detector.
        overlap: A counterpart has the same class and an IoU above this; each counts once.

    Returns:
        The share in [0, 1] of all images together, and the largest difference of scores.
    """
    found, total, difference = 0, 0, 0.0
    for reference, other in zip(references, others, strict=True):
        fits = box_iou(reference.bboxes, other.bboxes) > overlap
        fits &= reference.labels[:, None] == other.labels[None]
        distance = (reference.scores[:, None] - other.scores[None]).abs()
        distance = distance.masked_fill(~fits, np.inf).numpy()
        total += len(distance)
        for row in range(len(distance)):
            column = distance[row].argmin()
            if np.isfinite(distance[row, column]):
                found += 1
                difference = max(difference, float(distance[row, column]))
                distance[:, column] = np.inf
    return found / total, difference


def detections(parity: DetectorParity) -> list[InstanceData]:
    """The 100 best detections of each image of a fixture, from a detector in eval mode."""
    with torch.no_grad():
        parity.forward()
        return parity.model.bbox_head.predict_by_feat(
            parity.logits, parity.boxes, batch_img_metas=parity.metas, rescale=True
        )


def main() -> None:
    print('| detector | precision | detections that agree | largest difference of scores |')
    print('|---|---|---|---|')
    for name in sys.argv[1:] or CONFIGS:
        for dtype in ('bf16', 'fp16'):
            parity = DetectorParity(name)
            parity.model.eval()
            expected = detections(parity)
            prepare(parity.model, dtype)
            share, difference = agreement(expected, detections(parity))
            print(f'| {name} | {dtype} | {share:.1%} | {difference:.4f} |', flush=True)


if __name__ == '__main__':
    main()
