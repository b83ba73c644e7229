"""The 12 numbers against pycocotools itself."""

import contextlib
import io
import json
import pickle

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks._synthetic import coco_results, coco_truth
from benchmarks.evaluation import as_samples, build
from mpvit.errors import UserError
from mpvit.evaluation.coco import STATS
from mpvit.evaluation.coco_metric import format_table


@pytest.fixture(scope='module')
def truth(tmp_path_factory):
    """An annotation file."""
    path = tmp_path_factory.mktemp('metric') / 'truth.json'
    path.write_text(json.dumps(coco_truth(30)))
    return path


@pytest.fixture(scope='module')
def samples():
    """Detections made from the ground truth: moved, some missed, some wrong."""
    return as_samples(coco_results(coco_truth(30)))


def evaluate(truth, samples, kind='CocoBoxMetric', **options):
    metric = build(kind, truth, **options)
    metric.process({}, samples)
    return metric.evaluate(size=len(samples))


def test_numbers_and_table_are_pycocotools_own(truth, samples, tmp_path):
    metrics = evaluate(truth, samples, outfile_prefix=str(tmp_path / 'det'))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        objects = COCO(truth)
        evaluation = COCOeval(objects, objects.loadRes(str(tmp_path / 'det.bbox.json')), 'bbox')
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


def test_precision_of_each_class_on_request(truth, samples):
    assert not any('precision' in key for key in evaluate(truth, samples))
    metrics = evaluate(truth, samples, classwise=True)
    own = {key: value for key, value in metrics.items() if key.endswith('_precision')}
    theirs = evaluate(truth, samples, 'CocoMetric', classwise=True, metric='bbox')
    assert len(own) == 80
    # mmdet's limit is 100 detections an image too: the first of 100, 300 and 1000
    assert own == {key: -1 if np.isnan(theirs[key]) else theirs[key] for key in own}


def test_no_annotation_stays_in_memory_for_workers_to_inherit(truth):
    metric = build('CocoBoxMetric', truth)
    metric.dataset_meta = None
    assert len(pickle.dumps(metric)) < 500 + len(str(truth)) < truth.stat().st_size


@pytest.mark.parametrize('secret', [False, True])
def test_detections_alone_on_request(truth, samples, tmp_path, secret):
    """COCO's image_info_test-dev2017.json has images and categories only."""
    with pytest.raises(UserError, match='outfile_prefix'):
        evaluate(truth, samples, format_only=True)
    content = json.loads(truth.read_text())
    if secret:
        del content['annotations']
    path, prefix = tmp_path / 'image_info.json', str(tmp_path / 'det')
    path.write_text(json.dumps(content))
    assert evaluate(path, samples, format_only=True, outfile_prefix=prefix) == {}
    written = json.loads((tmp_path / 'det.bbox.json').read_text())
    assert {d['image_id'] for d in written} <= {image['id'] for image in content['images']}
    assert len(written) == sum(len(r['pred_instances']['scores']) for r in samples)
    if secret:
        with pytest.raises(UserError, match='annotations'):
            evaluate(path, samples)


def test_annotation_file_with_other_classes(truth, samples):
    metric = build('CocoBoxMetric', truth)
    metric.dataset_meta = dict(classes=[*metric.dataset_meta['classes'][:-1], 'letter'])
    metric.process({}, samples)
    with pytest.raises(UserError, match='79 of .* 80 classes'):
        metric.evaluate(size=len(samples))
