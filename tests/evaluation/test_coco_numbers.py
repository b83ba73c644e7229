"""faster-coco-eval against pycocotools, and what is read from the annotation file."""

import builtins
import json

import numpy as np
import pytest

from benchmarks._synthetic import coco_results, coco_truth
from mpvit.errors import UserError
from mpvit.evaluation import coco
from mpvit.evaluation.coco import detection_records, evaluate_boxes, read_truth


def check_against_pycocotools(tmp_path, images):
    content = coco_truth(images)
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    truth = read_truth(str(tmp_path / 'truth.json'))
    categories = [category['id'] for category in truth['categories']]
    detections = detection_records(coco_results(content), categories)
    assert 85 * images < len(detections) <= 100 * images
    assert len({d['score'] for d in detections}) <= 101  # many ties
    assert any(a['iscrowd'] for a in truth['annotations'])
    assert len({a['image_id'] for a in truth['annotations']}) < images  # some are empty
    assert len({d['image_id'] for d in detections}) < images
    fast = evaluate_boxes(truth, detections, categories, 'faster-coco-eval')
    slow = evaluate_boxes(truth, detections, categories, 'pycocotools')
    assert fast.precision.shape == (10, 101, 80, 4, 3)
    assert (fast.precision[:, :, -5:] == -1).all()  # classes without objects
    assert len(set(fast.stats.round(9))) == 12  # no two the same, a swapped pair would show
    assert (fast.stats > 0.1).all()
    np.testing.assert_allclose(fast.stats, slow.stats, rtol=0, atol=1e-14)
    np.testing.assert_allclose(fast.precision, slow.precision, rtol=0, atol=1e-14)
    return len(truth['annotations'])


def test_the_same_numbers_on_300_images(tmp_path):
    check_against_pycocotools(tmp_path, images=300)


@pytest.mark.slow
def test_the_same_numbers_on_as_much_as_val2017(tmp_path):
    assert 34000 < check_against_pycocotools(tmp_path, images=5000) < 39000


def test_without_faster_coco_eval_pycocotools_does_it_after_one_warning(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split('.')[0] == 'faster_coco_eval':
            raise ImportError(f'No module named {name}')
        return real(name, *args, **kwargs)

    content = coco_truth(4)
    results = coco_results(content, per_image=5)
    categories = [category['id'] for category in content['categories']]
    detections = detection_records(results, categories)
    expected = evaluate_boxes(content, detections, categories)
    coco._library.cache_clear()
    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.warns(UserWarning, match='pip install faster-coco-eval') as caught:
        actual = [evaluate_boxes(content, detections, categories) for _ in range(2)]
    coco._library.cache_clear()
    assert len(caught) == 1
    for evaluation in actual:
        np.testing.assert_allclose(evaluation.stats, expected.stats, rtol=0, atol=1e-14)


def test_no_detection_at_all_is_an_average_precision_of_zero():
    content = coco_truth(10)
    for library in ('faster-coco-eval', 'pycocotools'):
        evaluation = evaluate_boxes(content, [], [1, 2, 3], library)
        np.testing.assert_array_equal(evaluation.stats[:3], 0)


def test_annotation_without_area_or_iscrowd_and_with_id_0(tmp_path):
    """An id of 0 reads as 'unmatched' in either library, so a perfect result would not be 1."""
    boxes = [[10, 10, 50, 40], [100, 100, 50, 40]]
    annotations = [dict(id=i, image_id=5, category_id=2, bbox=box) for i, box in enumerate(boxes)]
    content = dict(images=[dict(id=5)], categories=[dict(id=2, name='a')], annotations=annotations)
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    truth = read_truth(str(tmp_path / 'truth.json'))
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], np.float32)
    detections = detection_records([(5, corners, np.array([0.9, 0.8]), np.zeros(2))], [2])
    for library in ('faster-coco-eval', 'pycocotools'):
        assert evaluate_boxes(truth, detections, [2], library).stats[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ('text', 'message'), [('{"images"', 'read as JSON'), ('[]', 'COCO'), ('{"images": 1}', 'COCO')]
)
def test_broken_annotation_file(tmp_path, text, message):
    (tmp_path / 'truth.json').write_text(text)
    with pytest.raises(UserError, match=f'truth.json .*{message}'):
        read_truth(str(tmp_path / 'truth.json'))


def test_detections_on_images_that_the_truth_does_not_have():
    detections = detection_records([(4, np.ones((1, 4)), np.ones(1), np.zeros(1))], [1])
    with pytest.raises(UserError, match='id 4'):
        evaluate_boxes(coco_truth(3), detections, [1])
