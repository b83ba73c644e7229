"""The published configuration itself: full model, full-size images, COCO's names and folders."""

import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
import parity_fill
import pytest
from mmdet.datasets import CocoDataset
from PIL import Image

from mpvit.datasets import toy as toy_module
from mpvit.datasets.toy import ToySpec

SIZES = [(640, 480), (640, 427), (480, 640), (500, 375)]


def write_coco(root) -> None:
    """Four images a split, with objects of many of COCO's categories."""
    (root / 'annotations').mkdir(parents=True)
    names = CocoDataset.METAINFO['classes']
    categories = [dict(id=i, name=n) for i, n in zip(parity_fill.COCO_IDS, names, strict=True)]
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        rng = np.random.default_rng(0)
        photos, digits = toy_module._load_photos(split), toy_module._load_digits(split)
        images, annotations = [], []
        for index, (width, height) in enumerate(SIZES, start=1):
            canvas = np.asarray(photos[index].resize((width, height)), np.float32).copy()
            spec = ToySpec(empty=0.0, max_objects=6)
            for category, (x1, y1, x2, y2) in toy_module._draw_objects(canvas, digits, spec, rng):
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=index,
                        category_id=parity_fill.COCO_IDS[7 * category + index],
                        bbox=[x1, y1, x2 - x1, y2 - y1],
                        area=(x2 - x1) * (y2 - y1),
                        iscrowd=0,
                    )
                )
            name = f'{index:012d}.jpg'
            Image.fromarray(canvas.round().astype(np.uint8)).save(root / split / name)
            images.append(dict(id=index, file_name=name, width=width, height=height))
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.skipif(
    os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') < 20e9,
    reason='it needs 18 GB of memory',
)
def test_one_epoch_and_an_evaluation_of_mpvit_small(root, tmp_path):
    """Takes minutes and about 18 GB of memory on a CPU."""
    write_coco(tmp_path / 'coco')
    (tmp_path / 'data').mkdir()
    os.symlink(tmp_path / 'coco', tmp_path / 'data' / 'coco')
    config = root / 'configs' / 'deformable_detr' / 'mpvit_s_ddetr_50e.py'
    work = tmp_path / 'work'

    def tool(*arguments):
        start = time.monotonic()
        command = [sys.executable, root / 'tools' / arguments[0], config, *arguments[1:]]
        subprocess.run(command, cwd=tmp_path, check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(f'{arguments[0]}: {time.monotonic() - start:.0f} s, peak so far {peak:.1f} GB')

    tool(
        'train.py', '--work-dir', work, '--from-scratch', '--cfg-options', 'train_cfg.max_epochs=1'
    )
    tool('test.py', work / 'epoch_1.pth', '--eval', 'bbox', '--work-dir', work)
    metrics = json.loads((work / 'metrics.json').read_text())['metrics']
    assert len(metrics) == 12
