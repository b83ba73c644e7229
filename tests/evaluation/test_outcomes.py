"""Outcomes of detections, by hand-made cases, and confusion, by another library's."""

import json

import numpy as np
import pytest
import supervision as sv
from synthetic_detections import detections_file, make_up, results_of, truth_file

from mpvit.evaluation.analysis import Analysis
from mpvit.evaluation.outcomes import OUTCOMES, judge
from mpvit.evaluation.result_files import read_results

BOX = [100, 100, 100, 100]


def shifted(share: float) -> list[float]:
    """`BOX`, moved to the right by a share of its width."""
    return [100 + 100 * share, 100, 100, 100]


def judged(tmp_path, objects, detections):
    """Outcomes of detections (class, box) with falling scores, of objects (class, box, crowd)."""
    scores = 0.9 - 0.1 * np.arange(len(detections))
    found = [(*detection, score) for detection, score in zip(detections, scores, strict=True)]
    outcomes = judge(results_of(tmp_path, objects, found))
    return [OUTCOMES[code] for code in outcomes.outcome], outcomes


@pytest.mark.parametrize(
    ('detection', 'outcome', 'missed'),
    [
        ((1, BOX), 'found', False),
        ((1, shifted(0.3)), 'found', False),  # IoU 0.7 / 1.3 = 0.54
        ((1, shifted(0.4)), 'location', False),  # 0.6 / 1.4 = 0.43
        ((1, shifted(0.8)), 'location', False),  # 0.2 / 1.8 = 0.11
        ((1, shifted(0.9)), 'background', True),  # 0.1 / 1.9 = 0.05
        ((2, shifted(0.3)), 'class', False),
        ((2, shifted(0.4)), 'both', True),
        ((2, shifted(0.9)), 'background', True),
        ((1, [400, 300, 50, 50]), 'background', True),
    ],
)
def test_each_kind_of_outcome(tmp_path, detection, outcome, missed):
    found, outcomes = judged(tmp_path, [(1, BOX)], [detection])
    assert found == [outcome]
    assert outcomes.missed.tolist() == [missed]
    assert outcomes.found.tolist() == [outcome == 'found']
    assert (outcomes.target[0] == -1) == (outcome == 'background')


def test_the_second_detection_of_an_object_is_a_duplicate(tmp_path):
    found, outcomes = judged(tmp_path, [(1, BOX)], [(1, shifted(0.2)), (1, BOX)])
    assert found == ['found', 'duplicate']  # the better score counts, not the better place
    assert outcomes.target.tolist() == [0, 0]


def test_a_detection_takes_the_object_that_it_covers_best(tmp_path):
    objects = [(1, shifted(0.3)), (1, BOX)]
    found, outcomes = judged(tmp_path, objects, [(1, BOX), (1, BOX)])
    assert found == ['found', 'found']
    assert outcomes.target.tolist() == [1, 0]


def test_a_crowd_takes_any_number_and_is_never_missed(tmp_path):
    crowd = (1, [0, 0, 400, 400], True)
    found, outcomes = judged(tmp_path, [crowd], [(1, BOX), (1, shifted(1)), (2, BOX)])
    assert found == ['ignored', 'ignored', 'background']
    assert not outcomes.missed.any()


def test_confusion_by_hand(tmp_path):
    objects = [(1, BOX), (2, [300, 300, 80, 80]), (1, [500, 10, 60, 60])]
    detections = [(1, BOX, 0.9), (1, shifted(0.1), 0.8), (1, [300, 300, 80, 80], 0.7)]
    study = Analysis(results_of(tmp_path, objects, detections))
    # a cat found, a dog taken for a cat, a cat missed; a second detection of the first cat
    assert study.confusion.tolist() == [[1, 0, 1], [1, 0, 0], [1, 0, 0]]
    assert study.error_counts() == dict(
        {'class': 1, 'duplicate': 1, 'missed': 1}, location=0, both=0, background=0
    )
    assert study.shown.found.tolist() == [True, False, False]


def test_outcomes_above_a_threshold_are_those_of_the_detections_above_it(tmp_path):
    outcomes = judge(read_results(*make_up(tmp_path, 20, 3, crowds=0.1)))
    shown = outcomes.above(0.5)
    assert 0 < len(shown.outcome) < len(outcomes.outcome)
    assert shown.results.detected.score.min() >= 0.5
    anew = judge(shown.results)
    for name in ('outcome', 'target', 'found', 'missed'):
        np.testing.assert_array_equal(getattr(shown, name), getattr(anew, name))
    for name, column in vars(anew.pairs).items():
        np.testing.assert_array_equal(getattr(shown.pairs, name), column)


def test_confusion_is_that_of_supervision(tmp_path):
    truth, found = make_up(tmp_path, images=40, classes=4, seed=3)
    study = Analysis(read_results(truth, found), threshold=0.3)
    content, detections = json.loads(truth.read_text()), json.loads(found.read_text())

    def rows(entries, image, *extra):
        chosen = [entry for entry in entries if entry['image_id'] == image]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (entry['bbox'] for entry in chosen)]
        values = [
            [*box, entry['category_id'] - 1, *(entry[key] for key in extra)]
            for box, entry in zip(corners, chosen, strict=True)
        ]
        return np.array(values, np.float32).reshape(len(chosen), 5 + len(extra))

    images = [image['id'] for image in content['images']]
    other = sv.ConfusionMatrix.from_tensors(
        predictions=[rows(detections, image, 'score') for image in images],
        targets=[rows(content['annotations'], image) for image in images],
        classes=list(study.results.names),
        conf_threshold=0.3,
        iou_threshold=0.5,
    )
    assert study.confusion.tolist() == other.matrix.astype(int).tolist()
    assert study.confusion[:4, :4].sum() > 50
    assert (study.confusion - np.diag(np.diag(study.confusion)))[:4, :4].sum() > 5


def test_images_are_ranked_by_f1(tmp_path):
    entries = [dict(image_id=image, category_id=1, bbox=BOX) for image in (1, 2, 2, 3)]
    entries[2] = dict(entries[2], bbox=[300, 300, 50, 50])
    truth = truth_file(tmp_path, entries, ['cat'], images=5)
    detections = [
        dict(image_id=1, category_id=1, bbox=BOX, score=0.9),
        dict(image_id=2, category_id=1, bbox=BOX, score=0.9),
        dict(image_id=4, category_id=1, bbox=BOX, score=0.9),
        dict(image_id=3, category_id=1, bbox=BOX, score=0.1),  # below the threshold
    ]
    study = Analysis(read_results(truth, detections_file(tmp_path, detections)))
    assert study.images.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert study.ranked_images(9) == dict(worst=[2, 3, 1], best=[0, 1])
    assert study.ranked_images(1) == dict(worst=[2], best=[0])
