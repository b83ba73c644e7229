"""The comparison itself: what it pairs, and what it does not let pass."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmengine.structures import InstanceData

from mpvit.export.comparison import detected, differences


def found(boxes, scores, labels):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels),
    )


ONE, TWO, THREE = [0, 0, 10, 10], [5, 5, 20, 20], [50, 50, 60, 60]
EXPECTED = found([ONE, TWO, THREE], [0.9, 0.5, 0.5], [1, 0, 0])


FEWER = found([ONE, TWO], [0.9, 0.5], [1, 0])


def test_order_of_equal_scores_does_not_matter_and_the_largest_difference_is_told():
    actual = found([ONE, THREE, [5, 5, 20, 20.0625]], [0.9, 0.5, 0.5], [1, 0, 0])
    assert differences(EXPECTED, actual, 0.1, 1e-4) == (0.0625, 0, 0, 3)


@pytest.mark.parametrize(
    ('expected', 'actual'),
    [
        (EXPECTED, found([ONE, TWO, THREE], [0.9, 0.5, 0.5], [0, 0, 0])),
        (EXPECTED, found([ONE, [5, 5, 20, 21], THREE], [0.9, 0.5, 0.5], [1, 0, 0])),
        (EXPECTED, found([ONE, TWO, THREE], [0.9, 0.5, 0.49], [1, 0, 0])),
        (EXPECTED, FEWER),
        (FEWER, EXPECTED),
        (EXPECTED, found([ONE, TWO, TWO], [0.9, 0.5, 0.5], [1, 0, 0])),
    ],
    ids=['class', 'box', 'score', 'fewer', 'more', 'one for two'],
)
def test_what_has_no_counterpart(expected, actual):
    assert differences(expected, actual, 0.1, 1e-4)[2:] == (1, 3)


def test_an_image_alone_is_padded_and_the_detector_knows_what_is_padding():
    seen = []

    def predict(images, samples):
        seen.append((images.shape[2:], samples[0].batch_input_shape, samples[0].img_shape))
        samples[0].pred_instances = FEWER
        return samples

    model = SimpleNamespace(data_preprocessor=DetDataPreprocessor(), predict=predict)
    assert detected(model, [torch.zeros(3, 20, 30, dtype=torch.uint8)], (40, 50)) == [FEWER]
    assert seen == [((40, 50), (40, 50), (20, 30))]
