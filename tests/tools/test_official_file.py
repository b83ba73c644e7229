"""An official file through tools/test.py, from pixels to the 12 numbers.

Expected: pycocotools on detections computed from the official model's stored logits and boxes.
"""

import argparse
import contextlib
import io
import json
from pathlib import Path

import numpy as np
import parity_fill
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from runs import metrics_of

from mpvit.evaluation.coco import STATS

PARITY = Path(__file__).resolve().parent.parent / 'data' / 'parity'
CONFIG = """
_base_ = '{base}'
custom_imports = dict(imports=['mpvit.register', 'array_images'], allow_failed_imports=False)
pipeline = [
    dict(type='LoadArray'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'img_shape', 'scale_factor')),
]
# the fixtures' images are normalised already
model = dict(data_preprocessor=dict(mean=[0, 0, 0], std=[1, 1, 1], bgr_to_rgb=False))
loader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root='{root}/', ann_file='truth.json', data_prefix=dict(img=''), pipeline=pipeline
    ),
)
val_dataloader = loader
test_dataloader = loader
val_evaluator = dict(ann_file='{root}/truth.json')
test_evaluator = val_evaluator
"""


@pytest.fixture(
    params=[
        ('mpvit_small', 'mpvit_s_ddetr_50e'),
        ('r50_refine', 'r50_ddetr_refine_50e'),
        ('r50_refine_two_stage', 'r50_ddetr_two_stage_50e'),
    ]
)
def case(request):
    name, config = request.param
    return name, config, dict(np.load(PARITY / f'detector_{name}.npz'))


def official_detections(fixture) -> list[dict]:
    """The official post-processing of the official model's outputs, over the ids COCO uses."""
    ids = np.array(parity_fill.COCO_IDS)
    found = []
    for index, (height, width) in enumerate(fixture['ori_shapes']):
        scores = 1 / (1 + np.exp(-fixture['pred_logits'][index][:, ids].astype(np.float64)))
        best = np.argsort(-scores.ravel(), kind='stable')[:100]
        query, column = np.divmod(best, len(ids))
        cx, cy, w, h = (fixture['pred_boxes'][index][query] * [width, height, width, height]).T
        for k in range(100):
            found.append(
                dict(
                    image_id=index + 1,
                    category_id=int(ids[column[k]]),
                    bbox=[float(v[k]) for v in (cx - w / 2, cy - h / 2, w, h)],
                    score=float(scores.ravel()[best[k]]),
                )
            )
    return found


def write_folder(root: Path, fixture, detections) -> None:
    """Images as arrays, and a ground truth that some of the detections meet more or less."""
    rng = np.random.default_rng(0)
    for index, (shape, seed) in enumerate(
        zip(fixture['img_shapes'], fixture['img_seeds'], strict=True), start=1
    ):
        np.save(root / f'{index}.npy', parity_fill.image((3, *shape), int(seed)))
    annotations = []
    for detection in detections[::4]:
        box = np.array(detection['bbox']) + rng.normal(0, 0.03, 4) * max(detection['bbox'][2:])
        annotations.append(
            dict(
                id=len(annotations) + 1,
                image_id=detection['image_id'],
                category_id=detection['category_id'],
                bbox=box.tolist(),
                area=float(box[2] * box[3]),
                iscrowd=0,
            )
        )
    images = [
        dict(id=i, file_name=f'{i}.npy', height=int(h), width=int(w))
        for i, (h, w) in enumerate(fixture['ori_shapes'], start=1)
    ]
    from mmdet.datasets import CocoDataset

    names = CocoDataset.METAINFO['classes']
    categories = [dict(id=i, name=n) for i, n in zip(parity_fill.COCO_IDS, names, strict=True)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'truth.json').write_text(json.dumps(content))


def evaluate_directly(root: Path, detections) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(root / 'truth.json')
        evaluation = COCOeval(truth, truth.loadRes(detections), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def write_official_file(path: Path, name: str) -> None:
    keys = json.loads((PARITY / 'keys' / f'detector_{name}.json').read_text())
    weights = parity_fill.fill_state_dict(keys['keys'], keys['aliases'], seed=0)
    tensors = {key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()}
    torch.save(dict(model=tensors, epoch=49, args=argparse.Namespace(lr=2e-4)), path)


def test_official_file_gives_the_official_numbers(root, tool, tmp_path, monkeypatch, case):
    name, config, fixture = case
    monkeypatch.syspath_prepend(str(root / 'tests'))
    detections = official_detections(fixture)
    write_folder(tmp_path, fixture, detections)
    write_official_file(tmp_path / 'official.pth', name)
    base = root / 'configs' / 'deformable_detr' / f'{config}.py'
    (tmp_path / 'case.py').write_text(CONFIG.format(base=base, root=tmp_path))
    files = (tmp_path / 'case.py', tmp_path / 'official.pth')
    tool('test', *files, '--eval', 'bbox', '--work-dir', tmp_path / 'work')
    metrics = metrics_of(tmp_path / 'work')
    actual = [metrics[f'coco/bbox_{key}'] for key in STATS.values()]
    expected = evaluate_directly(tmp_path, detections)
    assert 0.05 < expected[0] < 0.95
    np.testing.assert_allclose(actual, expected, atol=5.1e-4)  # rounded to 3 digits
