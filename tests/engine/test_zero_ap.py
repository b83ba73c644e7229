"""Each cause of an AP of 0, made to happen, is named; and a good detector gets no blame."""

import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope

from mpvit.engine.hooks.zero_ap import Detected, ZeroAPHook, detection_causes, loss_causes

CLASSES = ('cat', 'dog', 'cow')
BOXES = torch.tensor([[30.0, 40, 70, 80], [100, 20, 160, 80], [20, 120, 90, 190]])
LABELS = torch.arange(3)


def detected(boxes=BOXES, scores=0.9, labels=LABELS, truth=BOXES):
    scores = torch.as_tensor(scores).expand(len(boxes))
    return [Detected(boxes, scores, labels, truth, LABELS[: len(truth)])] * 5


def only(causes):
    (cause,) = causes
    return cause


def test_a_good_detector_has_no_cause():
    assert detection_causes(detected(), CLASSES) == []
    assert detection_causes(detected(BOXES + 4), CLASSES) == []


def test_images_without_objects_are_for_the_checker_of_datasets():
    assert detection_causes(detected(truth=BOXES[:0]), CLASSES) == []


def test_no_detections():
    causes = detection_causes(detected(boxes=BOXES[:0], labels=LABELS[:0]), CLASSES)
    assert 'the highest score of 0 detections is 0.000' in only(causes)


def test_scores_that_are_all_tiny():
    causes = detection_causes(detected(scores=[0.02, 0.03, 0.011]), CLASSES)
    assert 'the highest score of 15 detections is 0.030' in only(causes)


def test_shifted_labels():
    cause = only(detection_causes(detected(labels=(LABELS + 1) % 3), CLASSES))
    assert "'cat' is called 'dog', 'dog' is called 'cow', 'cow' is called 'cat'" in cause
    assert 'validation number the classes differently' in cause


def test_classes_that_are_not_in_the_validation_set():
    images = [Detected(BOXES[:1], torch.ones(1), LABELS[2:], BOXES[1:2], LABELS[:1])] * 5
    causes = detection_causes(images, CLASSES)
    assert 'the classes detected (cow) are not those there (cat)' in causes[0]


def test_everything_taken_for_one_class():
    causes = detection_causes(detected(labels=torch.ones(3).long()), CLASSES)
    assert only(causes) == "the best detections are all of one class, 'dog'"


@pytest.mark.parametrize(
    ('boxes', 'size'),
    [
        (BOXES / 4, 15),  # another scale
        (torch.cat([BOXES[:, :2], BOXES[:, :2] + BOXES[:, 2:]], 1), 113),  # corners for sides
    ],
)
def test_boxes_that_fit_nowhere(boxes, size):
    cause = only(detection_causes(detected(boxes), CLASSES))
    assert 'no box fits: 0% of 15 objects' in cause
    assert f'a side of {size} px in the median, objects 60 px' in cause


@pytest.mark.parametrize(
    ('losses', 'message'),
    [
        ([10, np.nan, np.nan], 'not finite: the learning rate is too high'),
        ([17.0, 20.0, 22.0, 26.0], 'had 500 steps of 1000 so far'),
        (np.linspace(10, 30, 100), 'has grown, from 10.91 to 29.09 .* too high'),
        (np.full(100, 9.0), 'hardly fallen, from 9.00 to 9.00 .* too low'),
        (np.linspace(10, 5, 100), 'falling, .* in 500 of 1000 steps: .* too short'),
    ],
)
def test_causes_in_the_losses(losses, message):
    causes = loss_causes(np.array(losses, float), 500, 1000)
    assert re.search(message, only(causes)), causes


def test_nothing_to_say_of_a_training_without_losses():
    assert loss_causes(np.zeros(0), 500, 1000) == []


@pytest.fixture(scope='module')
def dataset(toy):
    init_default_scope('mmdet')
    return DATASETS.build(
        dict(
            type='OfficialCocoDataset',
            data_root=str(toy),
            ann_file='annotations/instances_val2017.json',
            data_prefix=dict(img='val2017'),
            metainfo=dict(classes=('circle', 'square', 'triangle', 'star', 'cross', 'digit')),
            pipeline=[],
        )
    )


class FakeRunner(SimpleNamespace):
    """What the hook looks at, at the end of a validation."""

    def __init__(self, dataset, lr=1e-4):
        loss = SimpleNamespace(data=(np.linspace(10, 9.9, 50), np.ones(50)))
        group = dict(lr=lr, initial_lr=1e-4)
        super().__init__(
            val_dataloader=SimpleNamespace(dataset=dataset),
            message_hub=SimpleNamespace(log_scalars={'train/loss': loss}),
            optim_wrapper=SimpleNamespace(optimizer=SimpleNamespace(param_groups=[group])),
            iter=50,
            max_iters=100,
            logger=logging.getLogger('zero_ap'),
        )


def validate(hook, runner, ap, wrapper=None):
    """One validation whose detections are the objects, with other classes."""
    dataset = runner.val_dataloader.dataset
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        boxes = torch.tensor([i['bbox'] for i in info['instances']]).reshape(-1, 4)
        labels = torch.tensor([(i['bbox_label'] + 1) % 6 for i in info['instances']])
        found = dict(bboxes=boxes, scores=torch.full((len(boxes),), 0.8), labels=labels)
        sample = SimpleNamespace(img_id=info['img_id'], pred_instances=found)
        hook.after_val_iter(runner, index, outputs=[sample])
    if wrapper:
        inner = [dataset] if wrapper == 'datasets' else dataset
        runner.val_dataloader.dataset = SimpleNamespace(**{wrapper: inner})
    hook.after_val_epoch(runner, {'coco/bbox_mAP': ap})


def test_hook_speaks_twice_at_most_and_only_of_zero(dataset, caplog):
    hook, runner = ZeroAPHook(), FakeRunner(dataset)
    with caplog.at_level('WARNING', 'zero_ap'):
        validate(hook, runner, 0.0)
        assert 'AP 0.000 after 50 steps; likely causes found:' in caplog.text
        assert 'the loss has hardly fallen' in caplog.text
        assert 'Run mpvit check_dataset DIR to check the data' in caplog.text
        assert len(caplog.messages) == len(caplog.text.splitlines()) == 1
        caplog.clear()
        validate(hook, runner, 0.002)
        validate(hook, runner, 0.0)
        assert caplog.text == ''
    assert hook._samples == []


def test_hook_finds_exchanged_classes_in_a_whole_validation(dataset, caplog, monkeypatch):
    monkeypatch.setattr('mpvit.engine.hooks.zero_ap._ENOUGH', 1)  # a handful of images
    with caplog.at_level('WARNING', 'zero_ap'):
        validate(ZeroAPHook(), FakeRunner(dataset), 0.0)
    assert 'boxes are right and their classes are not' in caplog.text


@pytest.mark.parametrize('wrapper', [None, 'dataset', 'datasets'])
def test_a_learning_rate_that_is_far_from_full(dataset, caplog, wrapper):
    runner = FakeRunner(dataset, lr=2e-6)
    with caplog.at_level('WARNING', 'zero_ap'):
        validate(ZeroAPHook(), runner, 0.0, wrapper=wrapper)
    assert 'the learning rate is 2e-06, far below 0.0001: it is still in the' in caplog.text


def test_a_failing_look_does_not_end_the_training(dataset, caplog):
    runner = FakeRunner(dataset)
    del runner.message_hub
    with caplog.at_level('WARNING', 'zero_ap'):
        validate(ZeroAPHook(), runner, -1.0)
    assert 'looking for causes failed' in caplog.text
