"""Detections that are made up, with errors of all kinds, and the truth that they are about."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mpvit.evaluation.result_files import Results, read_results

WIDTH, HEIGHT = 640, 480


def truth_file(
    folder: Path, annotations: list[dict[str, Any]], names: list[str], images: int = 1
) -> Path:
    """Write an annotation file; annotations get ids, an area and, where it lacks, no crowd."""
    path = folder / 'truth.json'
    filled = [
        dict(iscrowd=0, area=entry['bbox'][2] * entry['bbox'][3], id=number) | entry
        for number, entry in enumerate(annotations, start=1)
    ]
    content = dict(
        images=[
            dict(id=number, file_name=f'{number}.jpg', width=WIDTH, height=HEIGHT)
            for number in range(1, images + 1)
        ],
        annotations=filled,
        categories=[dict(id=number, name=name) for number, name in enumerate(names, start=1)],
    )
    path.write_text(json.dumps(content))
    return path


def detections_file(folder: Path, detections: list[dict[str, Any]]) -> Path:
    """Write a file of detections."""
    path = folder / 'detections.bbox.json'
    path.write_text(json.dumps(detections))
    return path


def make_up(
    folder: Path,
    images: int,
    classes: int,
    seed: int = 0,
    *,
    crowds: float = 0.0,
    clutter: float = 8,
    objects: float = 5,
) -> tuple[Path, Path]:
    """Write truth and detections: good, shifted, of a wrong class, double, and of nothing."""
    random = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(1, images + 1):
        for _ in range(random.poisson(objects)):
            size = random.uniform(10, 250, 2)
            corner = random.uniform(0, [WIDTH, HEIGHT] - size)
            label = int(random.integers(classes)) + 1
            box = np.concatenate([corner, size])
            crowd = int(random.random() < crowds)
            annotations.append(
                dict(image_id=image, category_id=label, bbox=box.tolist(), iscrowd=crowd)
            )
            for _ in range(random.poisson(1.4)):
                spread = random.choice([0.05, 0.15, 0.5, 1.2])
                moved = box + random.normal(0, spread, 4) * 0.4 * np.tile(size, 2)
                moved[2:] = moved[2:].clip(4)
                if random.random() < 0.25:
                    label = int(random.integers(classes)) + 1
                score = float(np.clip(random.beta(4, 2) - 0.3 * spread, 0.01, 1))
                detections.append(
                    dict(image_id=image, category_id=label, bbox=moved.tolist(), score=score)
                )
        for _ in range(random.poisson(clutter)):
            size = random.uniform(10, 200, 2)
            corner = random.uniform(0, [WIDTH, HEIGHT] - size)
            detections.append(
                dict(
                    image_id=image,
                    category_id=int(random.integers(classes)) + 1,
                    bbox=[*corner.tolist(), *size.tolist()],
                    score=float(random.beta(1.2, 5)),
                )
            )
    names = [f'class {number}' for number in range(classes)]
    return truth_file(folder, annotations, names, images), detections_file(folder, detections)


def found_in(truth: Path, seed: int = 0) -> list[dict[str, Any]]:
    """Detections for an annotation file: most objects, some of them as another class."""
    random = np.random.default_rng(seed)
    content = json.loads(truth.read_text())
    ids = [category['id'] for category in content['categories']]
    return [
        dict(
            image_id=entry['image_id'],
            category_id=int(random.choice(ids)) if random.random() < 0.2 else entry['category_id'],
            bbox=(np.array(entry['bbox'], float) + random.normal(0, 2, 4)).clip(1).tolist(),
            score=float(random.uniform(0.35, 0.99)),
        )
        for entry in content['annotations']
        if random.random() < 0.8
    ]


def results_of(
    folder: Path,
    objects: list[tuple[Any, ...]],
    detections: list[tuple[Any, ...]],
    names: tuple[str, ...] = ('cat', 'dog'),
) -> Results:
    """One image's objects (class, box, and whether a crowd) and detections (class, box, score)."""
    truth = [
        dict(image_id=1, category_id=label, bbox=box, iscrowd=int(any(crowd)))
        for label, box, *crowd in objects
    ]
    found = [
        dict(image_id=1, category_id=label, bbox=box, score=score)
        for label, box, score in detections
    ]
    return read_results(truth_file(folder, truth, list(names)), detections_file(folder, found))
