"""vernier against pycocotools, and what is read from the annotation file."""

import json
import sys

import numpy as np
import pytest

from benchmarks._synthetic import coco_results, coco_truth
from mpvit.errors import UserError
from mpvit.evaluation.coco import detection_records, evaluate_boxes, read_truth


def written(folder, content):
    """What is read of an annotation file."""
    (folder / 'truth.json').write_text(json.dumps(content))
    return read_truth(str(folder / 'truth.json'))


def check_against_pycocotools(tmp_path, images):
    content = coco_truth(images)
    truth = written(tmp_path, content)
    categories = [category['id'] for category in truth['categories']]
    detections = detection_records(coco_results(content), categories)
    assert 85 * images < len(detections) <= 100 * images
    assert len({d['score'] for d in detections}) <= 101  # many ties
    assert any(a['iscrowd'] for a in truth['annotations'])
    assert len({a['image_id'] for a in truth['annotations']}) < images  # some are empty
    assert len({d['image_id'] for d in detections}) < images
    evaluation = check_libraries_agree(truth, detections, categories)
    assert evaluation.precision.shape == (10, 101, 80, 4, 3)
    assert np.isnan(evaluation.precision[:, :, -5:]).all()  # classes without objects
    assert len(set(evaluation.stats.round(9))) == 12  # no two the same, a swapped pair would show
    assert (evaluation.stats > 0.1).all()
    return len(truth['annotations'])


def check_libraries_agree(truth, detections, categories):
    """Every number, to the last bit."""
    evaluation = evaluate_boxes(truth, detections, categories, 'vernier')
    reference = evaluate_boxes(truth, detections, categories, 'pycocotools')
    np.testing.assert_array_equal(evaluation.stats, reference.stats)
    np.testing.assert_array_equal(evaluation.precision, reference.precision)
    return evaluation


def test_the_same_numbers_on_300_images(tmp_path):
    check_against_pycocotools(tmp_path, images=300)


@pytest.mark.slow
def test_the_same_numbers_on_as_much_as_val2017(tmp_path):
    assert 34000 < check_against_pycocotools(tmp_path, images=5000) < 39000


def made_up(seed, images=12, categories=(1, 2, 5, 90), crowds=0.1, detections=30):
    """Truth and detections: moved and wrong ones, many scores equal, ids in no order."""
    rng = np.random.default_rng(seed)
    annotations, found = [], []
    image_ids = (rng.permutation(5 * images)[:images] - images).tolist()  # some negative
    for image_id in image_ids:
        boxes = np.round(
            np.hstack([rng.uniform(0, 300, (5, 2)), np.exp(rng.uniform(1, 5.7, (5, 2)))]), 2
        )
        labels = rng.choice(categories, 5)
        for box, label in list(zip(boxes.tolist(), labels.tolist(), strict=True))[image_id % 6 :]:
            area = box[2] * box[3] * rng.uniform(0.4, 1)
            annotations.append(
                dict(image_id=image_id, category_id=label, bbox=box, area=area)
                | dict(id=len(annotations) + 1, iscrowd=int(rng.random() < crowds))
            )
        for number in rng.integers(0, 5, rng.poisson(detections) * (image_id % 4 > 0)):
            box = boxes[number] + rng.normal(0, rng.choice([0, 0.03, 0.3])) * boxes[number, 2]
            label = rng.choice(categories) if rng.random() < 0.2 else labels[number]
            found.append(
                dict(image_id=image_id, category_id=int(label), bbox=box.clip(0).tolist())
                | dict(score=round(rng.random(), 2))
            )
    truth = dict(
        images=[dict(id=image_id) for image_id in image_ids],
        categories=[dict(id=label, name=f'class {label}') for label in categories],
        annotations=annotations,
    )
    return truth, found, list(categories)


@pytest.mark.parametrize(
    'options',
    [
        *(dict(seed=seed) for seed in range(4)),
        dict(seed=8, categories=(3,)),
        dict(seed=9, categories=(-3, 0, 7, 2**60)),
        dict(seed=10, crowds=1),
        dict(seed=11, crowds=0),
        dict(seed=12, images=4, categories=(1, 2), detections=400),  # more than 100 of a class
        dict(seed=13, detections=0),
        dict(seed=14, images=1),
    ],
    ids=str,
)
def test_the_same_bits_on_made_up_sets(options):
    check_libraries_agree(*made_up(**options))


ODD_BOXES = [dict(bbox=[5.0, 5.0, 0.0, 0.0]), dict(bbox=[50.0, 50.0, -10.0, 20.0])]


@pytest.mark.parametrize('change', [*ODD_BOXES, dict(score=0.5), dict(score=7.0)], ids=str)
def test_the_same_bits_on_odd_detections(change):
    truth, found, categories = made_up(0)
    check_libraries_agree(truth, [entry | change for entry in found[::2]] + found, categories)


@pytest.mark.parametrize(
    'change',
    [
        *(dict(area=area) for area in (0, -4, 32**2, 96**2)),
        *ODD_BOXES[:1],
        dict(iscrowd=True),
        dict(image_id=12345),
        dict(category_id=12345),
    ],
    ids=str,
)
def test_the_same_bits_on_odd_annotations(change, tmp_path):
    truth, found, categories = made_up(1)
    odd = [entry | change for entry in truth['annotations'][::3]]
    images = [dict(entry, file_name='x') for entry in truth['images'] * 2]  # each listed twice
    content = truth | dict(images=images, annotations=odd + truth['annotations'])
    evaluation = check_libraries_agree(written(tmp_path, content), found, categories)
    if 12345 in change.values():  # what is not listed does not count
        plain = check_libraries_agree(truth, found, categories)
        np.testing.assert_array_equal(evaluation.stats, plain.stats)


def test_the_same_bits_of_some_categories_and_of_nothing():
    truth, found, categories = made_up(2)
    check_libraries_agree(truth, found, categories[1:3])
    check_libraries_agree(truth, found, [*categories, 12345])
    check_libraries_agree(truth | dict(annotations=[]), found, categories)
    check_libraries_agree(truth | dict(annotations=[], images=[]), [], categories)
    np.testing.assert_array_equal(check_libraries_agree(truth, [], categories).stats[:3], 0)


@pytest.mark.parametrize(
    ('score', 'reason'),
    [(np.nan, 'non-finite'), (np.inf, 'non-finite'), (0.5, 'import of vernier')],
)
def test_pycocotools_evaluates_what_vernier_does_not(monkeypatch, score, reason):
    truth, found, categories = made_up(3)
    found[0]['score'] = score
    if score == 0.5:  # as if it were not installed
        monkeypatch.setitem(sys.modules, 'vernier', None)
    with pytest.warns(UserWarning, match=f'vernier does not .*{reason}'):
        evaluation = evaluate_boxes(truth, found, categories)
    reference = evaluate_boxes(truth, found, categories, 'pycocotools')
    np.testing.assert_array_equal(evaluation.stats, reference.stats)


def test_annotation_without_area_or_iscrowd_and_with_id_0(tmp_path):
    """An id of 0 reads as 'unmatched' in either library, so a perfect result would not be 1."""
    boxes = [[10, 10, 50, 40], [100, 100, 50, 40]]
    annotations = [dict(id=i, image_id=5, category_id=2, bbox=box) for i, box in enumerate(boxes)]
    annotations[1]['area'] = None
    content = dict(
        images=[dict(id=5, file_name='5.jpg')],
        categories=[dict(id=2, name='a')],
        annotations=annotations,
    )
    truth = written(tmp_path, content)
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], np.float32)
    detections = detection_records([(5, corners, np.array([0.9, 0.8]), np.zeros(2))], [2])
    assert check_libraries_agree(truth, detections, [2]).stats[0] == pytest.approx(1)


def test_detections_on_images_that_the_truth_does_not_have():
    detections = detection_records([(4, np.ones((1, 4)), np.ones(1), np.zeros(1))], [1])
    with pytest.raises(UserError, match='id 4'):
        evaluate_boxes(coco_truth(3), detections, [1])
