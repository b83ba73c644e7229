"""The comparison itself: what it pairs, and what it does not let pass."""

import torch
from mmengine.structures import InstanceData

from mpvit.export.comparison import differences


def found(boxes, scores, labels):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels),
    )


ONE, TWO, THREE = [0, 0, 10, 10], [5, 5, 20, 20], [50, 50, 60, 60]
EXPECTED = found([ONE, TWO, THREE], [0.9, 0.5, 0.5], [1, 0, 0])


def test_order_of_equal_scores_does_not_matter():
    actual = found([ONE, THREE, TWO], [0.9, 0.5, 0.5], [1, 0, 0])
    assert differences(EXPECTED, actual, 0.1, 1e-4) == (0, 0, 0, 3)


def test_differences_are_largest_ones():
    actual = found([ONE, [5, 5, 20, 20.0625], THREE], [0.9, 0.5, 0.5], [1, 0, 0])
    assert differences(EXPECTED, actual, 0.1, 1e-4) == (0.0625, 0, 0, 3)


def test_other_class_box_or_score_has_no_counterpart():
    for actual in (
        found([ONE, TWO, THREE], [0.9, 0.5, 0.5], [0, 0, 0]),
        found([ONE, [5, 5, 20, 21], THREE], [0.9, 0.5, 0.5], [1, 0, 0]),
        found([ONE, TWO, THREE], [0.9, 0.5, 0.49], [1, 0, 0]),
        found([ONE, TWO], [0.9, 0.5], [1, 0]),
    ):
        assert differences(EXPECTED, actual, 0.1, 1e-4)[2:] == (1, 3)


def test_more_detections_than_expected_are_no_counterparts_either():
    fewer = found([ONE, TWO], [0.9, 0.5], [1, 0])
    assert differences(fewer, EXPECTED, 0.1, 1e-4)[2:] == (1, 3)


def test_one_detection_is_the_counterpart_of_one_only():
    twice = found([ONE, ONE], [0.9, 0.9], [1, 1])
    once = found([ONE, THREE], [0.9, 0.9], [1, 1])
    assert differences(twice, once, 0.1, 1e-4)[2:] == (1, 2)
