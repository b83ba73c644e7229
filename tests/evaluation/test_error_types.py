"""What errors cost: by hand, and by the numbers of the authors' package."""

import json
import time

import numpy as np
import pytest
from synthetic_detections import make_up, results_of

from mpvit.evaluation.analysis import Analysis
from mpvit.evaluation.coco import evaluate_boxes, read_truth
from mpvit.evaluation.error_types import ERROR_TYPES, average_precisions
from mpvit.evaluation.outcomes import FOUND, IGNORED
from mpvit.evaluation.result_files import read_results

BOX = [100, 100, 100, 100]
FAR = [400, 300, 60, 60]
# tidecv 1.0.1 (pip install --no-deps tidecv==1.0.1 pycocotools) on make_up(folder, 200, 5, seed=1):
# TIDE().evaluate(..., mode=TIDE.BOX), then ap, fix_main_errors, fix_special_errors, count_errors
TIDE_AP = 24.3260
TIDE_GAINS = dict(zip(ERROR_TYPES, (15.942, 9.9537, 1.0437, 1.755, 0.8806, 9.1716), strict=True))
TIDE_GAINS |= dict(false_positives=21.0205, false_negatives=29.0678)
TIDE_COUNTS = dict(zip(ERROR_TYPES, (266, 437, 530, 186, 1163, 277), strict=True))


@pytest.mark.parametrize(
    ('kind', 'detections'),
    [
        ('class', [(2, BOX, 0.9)]),
        ('location', [(1, [140, 100, 100, 100], 0.9)]),
        # of two errors at an object only the better one can be put right
        ('class', [(2, BOX, 0.9), (1, [140, 100, 100, 100], 0.8)]),
    ],
)
def test_an_error_costs_what_its_correction_gains(tmp_path, kind, detections):
    study = Analysis(results_of(tmp_path, [(1, BOX)], detections))
    assert study.stats['AP50'] == 0
    gains = {name: study.error_gains[name] for name in ERROR_TYPES}
    assert gains == pytest.approx(dict.fromkeys(ERROR_TYPES, 0.0) | {kind: 1.0})


@pytest.mark.parametrize(
    ('kind', 'detection'),
    [
        ('duplicate', (1, [104, 100, 100, 100], 0.5)),
        ('background', (1, [560, 100, 60, 60], 0.95)),
        ('both', (1, [340, 300, 100, 60], 0.95)),  # IoU 0.17 with the dog
    ],
)
def test_what_stands_before_a_hit_costs_its_precision(tmp_path, kind, detection):
    objects = [(1, BOX), (1, [20, 320, 80, 80]), (2, FAR)]
    hits = [(1, BOX, 0.9), (1, [20, 320, 80, 80], 0.4)]
    study = Analysis(results_of(tmp_path, objects, [*hits, detection]))
    alone = Analysis(results_of(tmp_path, objects, hits))
    gain = study.error_gains[kind]
    assert gain == pytest.approx(alone.stats['AP50'] - study.stats['AP50'])
    assert gain == study.error_gains['false_positives'] > 0.05


def test_missed_objects_cost_recall(tmp_path):
    study = Analysis(results_of(tmp_path, [(1, BOX), (1, FAR)], [(1, BOX, 0.9)]))
    assert study.stats['AP50'] == pytest.approx(51 / 101)  # up to a recall of 0.5
    assert study.error_gains['missed'] == pytest.approx(50 / 101)
    assert study.error_gains['false_negatives'] == pytest.approx(50 / 101)


def test_nothing_to_find(tmp_path):
    gains = Analysis(results_of(tmp_path, [], [(1, BOX, 0.9)])).error_gains
    assert np.isnan([*gains.values()]).all()


def test_numbers_are_those_of_tidecv(tmp_path, monkeypatch):
    # it reads the precision at i / 100, COCO at i * 0.01, which rounds differently: single steps
    monkeypatch.setattr('mpvit.evaluation.error_types._RECALLS', np.arange(101) / 100)
    study = Analysis(read_results(*make_up(tmp_path, 200, 5, seed=1)), threshold=0)
    points = {name: 100 * gain for name, gain in study.error_gains.items()}
    assert points == pytest.approx(TIDE_GAINS, abs=1e-3)
    assert 100 * class_ap50(study.shown, 5).mean() == pytest.approx(TIDE_AP, abs=1e-3)
    assert study.error_counts() == TIDE_COUNTS


def class_ap50(outcomes, classes):
    """AP of each class at an IoU of 0.5, by the matching of the outcomes."""
    objects, detected = outcomes.results.objects, outcomes.results.detected
    counts = outcomes.outcome != IGNORED
    return average_precisions(
        detected.label[counts],
        detected.score[counts],
        outcomes.outcome[counts] == FOUND,
        np.bincount(objects.label[~objects.crowd], minlength=classes),
    )


def test_average_precision_is_that_of_coco(tmp_path):
    files = make_up(tmp_path, 60, 4, seed=2, crowds=0.1)
    study = Analysis(read_results(*files), threshold=0)
    truth, found = read_truth(str(files[0])), json.loads(files[1].read_text())
    coco = evaluate_boxes(truth, found, [1, 2, 3, 4], 'pycocotools')
    own = class_ap50(study.shown, 4)
    assert own == pytest.approx(coco.precision[0, :, :, 0, 2].mean(0), abs=1e-12)
    assert list(study.stats.values()) == pytest.approx(coco.stats.tolist(), abs=1e-9)
    assert study.class_ap[:, 1] == pytest.approx(own, abs=1e-12)


def test_precision_and_recall_by_threshold(tmp_path):
    boxes = [(BOX, 0.9), ([10, 10, 20, 20], 0.6), (FAR, 0.5), ([10, 400, 30, 30], 0.2)]
    detections = [(1, *entry) for entry in boxes]
    study = Analysis(results_of(tmp_path, [(1, BOX), (1, FAR)], detections, ('cat',)))
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
def test_the_time_grows_with_the_images_and_no_faster(tmp_path):
    """COCO's size takes about 10 times as long as a tenth of it, on whatever machine."""
    seconds = []
    for images in (500, 5000):
        (tmp_path / str(images)).mkdir()
        files = make_up(tmp_path / str(images), images, 80, clutter=80, objects=7.3)
        start = time.process_time()
        results = read_results(*files)
        Analysis(results)
        seconds.append(time.process_time() - start)
    assert len(results.detected.score) > 400_000
    print(f'{seconds[0]:.1f} and {seconds[1]:.0f} s of CPU')
    assert seconds[1] < 25 * seconds[0]
