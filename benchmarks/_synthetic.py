"""Made-up images, and COCO data with everything in it that evaluation treats specially."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CLASSES = 80
SEED = 0
FULL = (800, 1333)  # pixels of an image as in most papers


def image_tensor(size: tuple[int, int], batch: int = 1) -> Tensor:
    """Smooth noise as a normalised image: ``(B, 3, H, W)`` with mean 0 and deviation 1."""
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.randn(batch, 3, size[0] // 16 + 2, size[1] // 16 + 2, generator=generator)
    image = nn.functional.interpolate(coarse, size, mode='bicubic')
    return image + 0.1 * torch.randn(batch, 3, *size, generator=generator)


def coco_truth(images: int, seed: int = 0) -> dict[str, Any]:
    """Ground truth with COCO's density: 7.2 objects an image on average, 80 categories.

    Some images are empty, every 60th object is a crowd, the last five categories have no
    objects, and the ids of categories and images have gaps, as COCO's have.

    Args:
        images: Number of images, 640 x 480 pixels.
        seed: Seed of all random choices.
    """
    rng = np.random.default_rng(seed)
    annotations = []
    for image in range(images):
        count = 0 if rng.random() < 0.02 else rng.geometric(1 / 7.4)
        size = np.exp(rng.uniform(np.log(6), np.log(300), (count, 2)))
        corner = rng.random((count, 2)) * np.maximum([640, 480] - size, 1)
        # frequent and rare categories, as in COCO
        labels = (rng.random(count) ** 3 * (CLASSES - 5)).astype(int)
        for box, label in zip(np.hstack([corner, size]).round(2).tolist(), labels, strict=True):
            number = len(annotations) + 1
            annotations.append(
                dict(
                    id=number,
                    image_id=10 + 3 * image,
                    category_id=1 + int(label) + int(label) // 20,
                    bbox=box,
                    area=box[2] * box[3] * 0.7,  # of the mask, smaller than the box
                    iscrowd=int(number % 60 == 0),
                )
            )
    return dict(
        images=[
            dict(id=i, file_name=f'{i}.jpg', width=640, height=480)
            for i in range(10, 10 + 3 * images, 3)
        ],
        categories=[dict(id=1 + i + i // 20, name=f'class {i}') for i in range(CLASSES)],
        annotations=annotations,
    )


def coco_results(truth: dict[str, Any], per_image: int = 100, seed: int = 1) -> list[tuple]:
    """Detections as a detector gives them: some right, some twice, most of them wrong.

    Scores are rounded to two digits, so that many are equal.

    Args:
        truth: From `coco_truth`.
        per_image: Most detections in an image; every tenth image has fewer, some none.
        seed: Seed of all random choices.

    Returns:
        Per image its id, boxes ``(N, 4)`` as ``(x1, y1, x2, y2)``, scores and labels ``(N,)``.
    """
    rng = np.random.default_rng(seed)
    label_of = {category['id']: i for i, category in enumerate(truth['categories'])}
    objects: dict[int, list] = {image['id']: [] for image in truth['images']}
    for annotation in truth['annotations']:
        label = label_of[annotation['category_id']]
        objects[annotation['image_id']].append([*annotation['bbox'], label])
    results = []
    for image_id, rows in objects.items():
        known = np.repeat(np.array(rows, np.float64).reshape(-1, 5), 2, axis=0)
        known = known[rng.random(len(known)) < 0.7]
        known[:, :4] += rng.normal(0, 0.08, (len(known), 4)) * known[:, [2, 3, 2, 3]]
        known[:, 2:4] = np.maximum(known[:, 2:4], 1)
        wrong = np.hstack(
            [
                rng.uniform(0, 400, (per_image, 2)),
                rng.uniform(2, 200, (per_image, 2)),
                rng.integers(0, CLASSES, (per_image, 1)),
            ]
        )
        found = np.vstack([known, wrong])[:per_image]
        scores = np.where(np.arange(len(found)) < len(known), 0.3, 0) + 0.7 * rng.random(len(found))
        if rng.random() < 0.1:
            found = found[: 5 * rng.integers(0, 4)]
            scores = scores[: len(found)]
        boxes = np.hstack([found[:, :2], found[:, :2] + found[:, 2:4]]).astype(np.float32)
        results.append((image_id, boxes, scores.round(2).astype(np.float32), found[:, 4]))
    return results
