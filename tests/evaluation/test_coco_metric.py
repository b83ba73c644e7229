"""The 12 numbers against pycocotools itself."""

import contextlib
import io
import json
import pickle

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mpvit.datasets.toy import CLASSES
from mpvit.errors import UserError
from mpvit.evaluation.coco import STATS
from mpvit.evaluation.coco_metric import format_table


@pytest.fixture(scope='module')
def results(toy):
    """Detections made from the ground truth: moved, some missed, some wrong."""
    rng = np.random.default_rng(0)
    truth = json.loads((toy / 'annotations' / 'instances_val2017.json').read_text())
    samples = []
    for image in truth['images']:
        boxes = np.array(
            [a['bbox'] for a in truth['annotations'] if a['image_id'] == image['id']]
        ).reshape(-1, 4)
        labels = np.array(
            [a['category_id'] - 1 for a in truth['annotations'] if a['image_id'] == image['id']],
            int,
        )
        boxes = np.repeat(boxes, 3, 0) + rng.normal(0, 2, (3 * len(boxes), 4))
        labels = np.where(rng.random(3 * len(labels)) < 0.2, 0, np.repeat(labels, 3))
        xyxy = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        samples.append(
            dict(
                img_id=image['id'],
                ori_shape=(image['height'], image['width']),
                pred_instances=dict(
                    bboxes=torch.tensor(xyxy),
                    scores=torch.tensor(rng.random(len(boxes))),
                    labels=torch.tensor(labels, dtype=torch.long),
                ),
            )
        )
    return samples


def evaluate(toy, results, **kwargs):
    path = str(toy / 'annotations' / 'instances_val2017.json')
    metric = METRICS.build(dict(dict(type='CocoBoxMetric', ann_file=path), **kwargs))
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, results)
    return metric.evaluate(size=len(results))


def test_numbers_and_table_are_pycocotools_own(toy, results, tmp_path):
    metrics = evaluate(toy, results, outfile_prefix=str(tmp_path / 'det'))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        truth = COCO(toy / 'annotations' / 'instances_val2017.json')
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / 'det.bbox.json')), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.params.maxDets == [1, 10, 100]
    actual = [metrics[f'coco/bbox_{key}'] for key in STATS.values()]
    assert 0.05 < actual[0] < 0.95
    assert len(set(actual)) > 6  # a swapped pair would show
    np.testing.assert_allclose(actual, evaluation.stats, atol=5.1e-4)  # rounded to 3 digits
    expected = [line for line in printed.getvalue().splitlines() if line.startswith(' Average')]
    assert format_table(metrics).splitlines() == expected


def test_precision_of_each_class_on_request(toy, results):
    assert not any('precision' in key for key in evaluate(toy, results))
    metrics = evaluate(toy, results, classwise=True)
    own = {f'coco/{name}_precision': metrics[f'coco/{name}_precision'] for name in CLASSES}
    theirs = evaluate(toy, results, classwise=True, type='CocoMetric', metric='bbox')
    expected = {key: -1 if (ap := theirs[key]) != ap else ap for key in own}
    # mmdet's limit is 100 detections an image too: the first of 100, 300 and 1000
    assert own == expected


def test_no_annotation_stays_in_memory_for_workers_to_inherit(toy):
    path = toy / 'annotations' / 'instances_val2017.json'
    metric = METRICS.build(dict(type='CocoBoxMetric', ann_file=str(path)))
    assert len(pickle.dumps(metric)) < 500 + len(str(path)) < path.stat().st_size


def test_detections_alone_on_request(toy, results, tmp_path):
    with pytest.raises(UserError, match='outfile_prefix'):
        evaluate(toy, results, format_only=True)
    prefix = str(tmp_path / 'det')
    assert evaluate(toy, results, format_only=True, outfile_prefix=prefix) == {}
    written = json.loads((tmp_path / 'det.bbox.json').read_text())
    assert len(written) == sum(len(r['pred_instances']['scores']) for r in results)


def test_detections_on_images_whose_annotations_are_secret(toy, results, tmp_path):
    """COCO's image_info_test-dev2017.json has images and categories only."""
    content = json.loads((toy / 'annotations' / 'instances_val2017.json').read_text())
    del content['annotations']
    path, prefix = tmp_path / 'image_info.json', str(tmp_path / 'det')
    path.write_text(json.dumps(content))
    files = dict(ann_file=str(path), outfile_prefix=prefix)
    assert evaluate(toy, results, format_only=True, **files) == {}
    written = json.loads((tmp_path / 'det.bbox.json').read_text())
    assert {d['image_id'] for d in written} <= {image['id'] for image in content['images']}
    assert len(written) == sum(len(r['pred_instances']['scores']) for r in results)
    with pytest.raises(UserError, match='annotations'):
        evaluate(toy, results, **files)


def test_annotation_file_with_other_classes(toy, results):
    metric = METRICS.build(
        dict(type='CocoBoxMetric', ann_file=str(toy / 'annotations' / 'instances_val2017.json'))
    )
    metric.dataset_meta = dict(classes=[*CLASSES[:-1], 'letter'])
    metric.process({}, results)
    with pytest.raises(UserError, match='5 of .* 6 classes'):
        metric.evaluate(size=len(results))
