"""What errors cost: by hand, and by the numbers of the authors' package."""

import numpy as np
import pytest
from synthetic_detections import detections_file, make_up, truth_file

from mpvit.evaluation.analysis import analyse
from mpvit.evaluation.coco import detection_records, evaluate_boxes, read_truth
from mpvit.evaluation.error_types import average_precisions, error_types
from mpvit.evaluation.outcomes import judge
from mpvit.evaluation.result_files import read_results

BOX = [100, 100, 100, 100]
FAR = [400, 300, 60, 60]
# tidecv 1.0.1 (pip install --no-deps tidecv==1.0.1 pycocotools) on make_up(folder, 200, 5, seed=1):
# TIDE().evaluate(..., mode=TIDE.BOX), then ap, fix_main_errors, fix_special_errors, count_errors
TIDE_AP = 24.3260
TIDE_GAINS = {
    'class': 15.942,
    'location': 9.9537,
    'both': 1.0437,
    'duplicate': 1.755,
    'background': 0.8806,
    'missed': 9.1716,
}
TIDE_SPECIAL = (21.0205, 29.0678)
TIDE_COUNTS = {
    'class': 266,
    'location': 437,
    'both': 530,
    'duplicate': 186,
    'background': 1163,
    'missed': 277,
}


def costs(tmp_path, objects, detections):
    """Error types for one image; objects (class, box), detections (class, box, score)."""
    truth = truth_file(
        tmp_path,
        [dict(image_id=1, category_id=label, bbox=box) for label, box in objects],
        ['cat', 'dog'],
    )
    found = detections_file(
        tmp_path,
        [
            dict(image_id=1, category_id=label, bbox=box, score=score)
            for label, box, score in detections
        ],
    )
    results = read_results(truth, found)
    return error_types(results, judge(results))


def test_a_wrong_class_costs_what_its_correction_gains(tmp_path):
    errors = costs(tmp_path, [(1, BOX)], [(2, BOX, 0.9)])
    assert errors.ap50 == 0
    gains = dict.fromkeys(errors.gains, 0.0) | {'class': 1.0}
    assert errors.gains == pytest.approx(gains)


def test_a_bad_place(tmp_path):
    errors = costs(tmp_path, [(1, BOX)], [(1, [140, 100, 100, 100], 0.9)])
    assert errors.gains == pytest.approx(dict.fromkeys(errors.gains, 0.0) | dict(location=1.0))


def test_of_two_errors_at_an_object_only_the_better_one_can_be_put_right(tmp_path):
    detections = [(2, BOX, 0.9), (1, [140, 100, 100, 100], 0.8)]
    errors = costs(tmp_path, [(1, BOX)], detections)
    assert errors.gains['class'] == pytest.approx(1)
    assert errors.gains['location'] == 0


def test_what_stands_before_a_hit_costs_its_precision(tmp_path):
    for name, detection in (
        ('duplicate', (1, [104, 100, 100, 100], 0.5)),
        ('background', (1, FAR, 0.95)),
        ('both', (1, [340, 300, 100, 60], 0.95)),  # IoU 0.17 with the dog
    ):
        objects = [(1, BOX), (1, [20, 320, 80, 80]), (2, [400, 300, 60, 60])]
        if name == 'background':
            objects.pop()
        hits = [(1, BOX, 0.9), (1, [20, 320, 80, 80], 0.4)]
        errors = costs(tmp_path, objects, [*hits, detection])
        alone = costs(tmp_path, objects, hits)
        assert errors.gains[name] == pytest.approx(alone.ap50 - errors.ap50), name
        assert errors.gains[name] > 0.05, name
        assert errors.false_positives == pytest.approx(errors.gains[name])


def test_missed_objects_cost_recall(tmp_path):
    errors = costs(tmp_path, [(1, BOX), (1, FAR)], [(1, BOX, 0.9)])
    assert errors.ap50 == pytest.approx(51 / 101)  # up to a recall of 0.5
    assert errors.gains['missed'] == pytest.approx(50 / 101)
    assert errors.false_negatives == pytest.approx(50 / 101)


def test_nothing_to_find_or_nothing_found(tmp_path):
    assert np.isnan(costs(tmp_path, [], [(1, BOX, 0.9)]).ap50)
    assert costs(tmp_path, [(1, BOX)], []).ap50 == 0


def test_numbers_are_those_of_tidecv(tmp_path, monkeypatch):
    # it reads the precision at i / 100, COCO at i * 0.01, which rounds differently: single steps
    monkeypatch.setattr('mpvit.evaluation.error_types._RECALLS', np.arange(101) / 100)
    results = read_results(*make_up(tmp_path, 200, 5, seed=1))
    outcomes = judge(results)
    errors = error_types(results, outcomes)
    points = {name: 100 * gain for name, gain in errors.gains.items()}
    assert points == pytest.approx(TIDE_GAINS, abs=1e-3)
    assert 100 * errors.ap50 == pytest.approx(TIDE_AP, abs=1e-3)
    special = (100 * errors.false_positives, 100 * errors.false_negatives)
    assert special == pytest.approx(TIDE_SPECIAL, abs=1e-3)
    counts = analyse(results, threshold=0).error_counts()
    assert counts == TIDE_COUNTS


def test_average_precision_is_that_of_coco(tmp_path):
    truth, found = make_up(tmp_path, 60, 4, seed=2, crowds=0.1)
    results = read_results(truth, found)
    outcomes = judge(results)
    real = ~results.objects.crowd
    counts = outcomes.outcome != 6  # not in a crowd
    own = average_precisions(
        results.detected.label[counts],
        results.detected.score[counts],
        outcomes.outcome[counts] == 0,
        np.bincount(results.objects.label[real], minlength=4),
    )
    detected = results.detected
    corners = detected.boxes.copy()
    corners[:, 2:] += corners[:, :2]
    records = detection_records(
        [
            (int(id_), corners[rows], detected.score[rows], detected.label[rows])
            for index, id_ in enumerate(results.image_ids)
            for rows in [detected.image == index]
        ],
        [1, 2, 3, 4],
    )
    coco = evaluate_boxes(read_truth(str(truth)), records, [1, 2, 3, 4], 'pycocotools')
    assert own == pytest.approx(coco.precision[0, :, :, 0, 2].mean(0), abs=1e-12)
    study = analyse(results)
    assert list(study.stats.values()) == pytest.approx(coco.stats.tolist(), abs=1e-9)
    assert study.class_ap[:, 1] == pytest.approx(own, abs=1e-12)


def test_precision_and_recall_by_threshold(tmp_path):
    truth = truth_file(
        tmp_path, [dict(image_id=1, category_id=1, bbox=box) for box in (BOX, FAR)], ['cat']
    )
    boxes = [(BOX, 0.9), ([10, 10, 20, 20], 0.6), (FAR, 0.5), ([10, 400, 30, 30], 0.2)]
    detections = [dict(image_id=1, category_id=1, bbox=box, score=score) for box, score in boxes]
    study = analyse(read_results(truth, detections_file(tmp_path, detections)))
    expected = [
        [0.9, 1, 0.5, 2 / 3],
        [0.6, 0.5, 0.5, 0.5],
        [0.5, 2 / 3, 1, 0.8],
        [0.2, 0.5, 1, 2 / 3],
    ]
    assert study.sweep == pytest.approx(np.array(expected))
    assert study.best_threshold == 0.5
    (row,) = study.class_rows()  # at 0.3
    assert (row['precision'], row['recall'], row['objects']) == pytest.approx((2 / 3, 1, 2))


@pytest.mark.slow
def test_coco_in_well_under_a_minute(tmp_path):
    import time

    files = make_up(tmp_path, 5000, 80, clutter=80, objects=7.3)
    start = time.process_time()
    results = read_results(*files)
    analyse(results)
    seconds = time.process_time() - start
    sizes = f'{len(results.objects.label)} objects, {len(results.detected.score)} detections'
    print(f'{sizes}: {seconds:.0f} s of CPU')
    assert len(results.detected.score) > 400_000
    assert seconds < 40
