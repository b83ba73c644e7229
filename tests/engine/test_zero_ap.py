"""Each cause of an AP of 0, made to happen, is named; and a good detector gets no blame."""

import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from PIL import Image

from mpvit.engine.zero_ap import ZeroAPHook
from mpvit.engine.zero_ap_causes import (
    Detected,
    Progress,
    annotation_causes,
    detection_causes,
    image_causes,
    training_causes,
)

CLASSES = ('cat', 'dog', 'cow')
BOXES = np.array([[30, 40, 70, 80], [100, 20, 160, 80], [20, 120, 90, 190]], float)
LABELS = np.arange(3)


def detected(boxes=BOXES, scores=0.9, labels=LABELS, truth=BOXES):
    scores = np.broadcast_to(np.asarray(scores, float), len(boxes))
    return [Detected(boxes, scores, labels, truth, LABELS[: len(truth)])] * 5


def only(causes):
    (cause,) = causes
    return cause


def test_a_good_detector_has_no_cause():
    assert detection_causes(detected(), CLASSES) == []
    assert detection_causes(detected(BOXES + 4), CLASSES) == []


def test_no_objects():
    causes = detection_causes(detected(truth=BOXES[:0]), CLASSES)
    assert 'none of the 5 validated images has a box of the classes (cat, dog, cow)' in only(causes)


def test_no_detections():
    causes = detection_causes(detected(boxes=BOXES[:0], labels=LABELS[:0]), CLASSES)
    assert 'no detection at all' in only(causes)


def test_scores_that_are_all_tiny():
    causes = detection_causes(detected(scores=[0.02, 0.03, 0.011]), CLASSES)
    assert 'the highest score of 15 detections is 0.030' in only(causes)


def test_shifted_labels():
    cause = only(detection_causes(detected(labels=(LABELS + 1) % 3), CLASSES))
    assert "'cat' is called 'dog', 'dog' is called 'cow', 'cow' is called 'cat'" in cause
    assert 'compare the categories' in cause


def test_classes_that_are_not_in_the_validation_set():
    images = [Detected(BOXES[:1], np.ones(1), np.array([2]), BOXES[1:2], np.array([0]))] * 5
    causes = detection_causes(images, CLASSES)
    assert 'the classes detected (cow) are not those of the validation set (cat)' in causes[0]


def test_everything_taken_for_one_class():
    causes = detection_causes(detected(labels=np.ones(3, int)), CLASSES)
    assert only(causes) == "the best detections are all of one class, 'dog'"


@pytest.mark.parametrize(
    ('boxes', 'size'),
    [
        (BOXES / 4, 15),  # another scale
        (np.concatenate([BOXES[:, :2], BOXES[:, :2] + BOXES[:, 2:]], 1), 113),  # corners for sides
    ],
)
def test_boxes_that_fit_nowhere(boxes, size):
    cause = only(detection_causes(detected(boxes), CLASSES))
    assert 'no box fits: 0% of 15 objects' in cause
    assert f'a side of {size} px in the median, objects of 60 px' in cause


def progress(losses=(), step=500, lr=1e-4, warm_up=0):
    return Progress(step, 1000, lr, 1e-4, warm_up, np.array(losses, float))


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (dict(step=20, lr=2e-6, warm_up=1000), 'warm-up is at step 20 of 1000, .* 2e-06 of 0.0001'),
        (dict(lr=0.0), 'the learning rate is 0'),
        (dict(losses=[10, np.nan, np.nan]), 'not finite: the learning rate is too high'),
        (dict(step=4, losses=[17.0, 20.0, 22.0, 26.0]), 'had 4 steps of 1000 so far'),
        (dict(losses=np.linspace(10, 30, 100)), 'has grown, from 10.91 to 29.09 .* too high'),
        (dict(losses=np.full(100, 9.0)), 'hardly fallen, from 9.00 to 9.00 .* too low'),
        (dict(losses=np.linspace(10, 5, 100)), 'step 500 of 1000 and the loss is falling'),
    ],
)
def test_causes_in_the_training(given, message):
    causes = training_causes(progress(**given))
    assert re.search(message, only(causes)), causes


def test_nothing_to_say_of_a_training_without_losses():
    assert training_causes(progress()) == []


def content(boxes, category=1, size=(200, 200)):
    notes = [dict(image_id=1, category_id=category, bbox=list(box)) for box in boxes]
    image = dict(id=1, width=size[0], height=size[1])
    return dict(images=[image], annotations=notes, categories=[dict(id=1, name='cat')])


def sides(boxes=BOXES):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def test_good_annotations_have_no_cause():
    assert annotation_causes(content(sides()), 3, 'training') == []


def test_corners_in_place_of_sides():
    cause = only(annotation_causes(content(BOXES), 3, 'training'))
    assert '2 of 3 training boxes reach out' in cause
    assert 'they look like corners (x1, y1, x2, y2)' in cause


def test_fractions_in_place_of_pixels():
    causes = annotation_causes(content(sides() / 200), 3, 'validation')
    assert 'the validation boxes are fractions between 0 and 1' in only(causes)


def test_no_boxes_in_the_file():
    assert only(annotation_causes(content([]), 0, 'training')) == (
        'the training annotations hold no boxes'
    )


def test_boxes_that_were_filtered():
    unknown = content(sides(), category=7)
    assert '3 of 3 training boxes are not used (3 of unknown categories, 0 flat' in only(
        annotation_causes(unknown, 0, 'training')
    )
    flat = content([[1, 1, 0, 5], [300, 1, 5, 5], [1, 1, 5, 5]])
    assert '2 of 3 training boxes are not used (0 of unknown categories, 2 flat' in only(
        annotation_causes(flat, 1, 'training')
    )


def test_images_of_another_size_than_stated(tmp_path):
    Image.new('RGB', (30, 20)).save(tmp_path / '1.png')
    images = [(str(tmp_path / '1.png'), 60, 40), (str(tmp_path / 'missing.png'), 1, 1)]
    cause = only(image_causes(images, 'training'))
    assert '1 of 1 training images have another size' in cause
    assert '1.png is 30 x 20, stated 60 x 40' in cause
    assert image_causes([(str(tmp_path / '1.png'), 30, 20)], 'training') == []


@pytest.fixture(scope='module')
def datasets(toy):
    init_default_scope('mmdet')
    return {
        split: DATASETS.build(
            dict(
                type='OfficialCocoDataset',
                data_root=str(toy),
                ann_file=f'annotations/instances_{split}2017.json',
                data_prefix=dict(img=f'{split}2017'),
                metainfo=dict(classes=('circle', 'square', 'triangle', 'star', 'cross', 'digit')),
                pipeline=[],
            )
        )
        for split in ('train', 'val')
    }


class FakeRunner(SimpleNamespace):
    """What the hook looks at, at the end of a validation."""

    def __init__(self, datasets):
        loss = SimpleNamespace(data=(np.linspace(10, 9.9, 50), np.ones(50)))
        group = dict(lr=1e-4, initial_lr=1e-4)
        super().__init__(
            train_dataloader=SimpleNamespace(dataset=datasets['train']),
            val_dataloader=SimpleNamespace(dataset=datasets['val']),
            message_hub=SimpleNamespace(log_scalars={'train/loss': loss}),
            optim_wrapper=SimpleNamespace(optimizer=SimpleNamespace(param_groups=[group])),
            param_schedulers=[],
            iter=50,
            max_iters=100,
            logger=logging.getLogger('zero_ap'),
        )


def validate(hook, runner, ap, shift=1):
    """One validation whose detections are the objects, with other classes."""
    dataset = runner.val_dataloader.dataset
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        boxes = torch.tensor([i['bbox'] for i in info['instances']]).reshape(-1, 4)
        labels = torch.tensor([(i['bbox_label'] + shift) % 6 for i in info['instances']])
        found = dict(bboxes=boxes, scores=torch.full((len(boxes),), 0.8), labels=labels)
        sample = SimpleNamespace(img_id=info['img_id'], pred_instances=found)
        hook.after_val_iter(runner, index, outputs=[sample])
    hook.after_val_epoch(runner, {'coco/bbox_mAP': ap})


def test_hook_speaks_twice_at_most_and_only_of_zero(datasets, caplog):
    hook, runner = ZeroAPHook(), FakeRunner(datasets)
    with caplog.at_level('WARNING', 'zero_ap'):
        validate(hook, runner, 0.0)
        assert 'AP 0.000 after 50 steps; likely causes found:' in caplog.text
        assert 'the loss has hardly fallen' in caplog.text
        caplog.clear()
        validate(hook, runner, 0.002)
        validate(hook, runner, 0.0)
        assert caplog.text == ''
    assert hook._samples == []


def test_hook_finds_exchanged_classes_in_a_whole_validation(datasets, caplog, monkeypatch):
    monkeypatch.setattr('mpvit.engine.zero_ap_causes._ENOUGH', 1)  # a handful of images
    with caplog.at_level('WARNING', 'zero_ap'):
        validate(ZeroAPHook(), FakeRunner(datasets), 0.0)
    assert 'boxes are right and their classes are not' in caplog.text


def test_a_failing_look_does_not_end_the_training(datasets, caplog):
    runner = FakeRunner(datasets)
    del runner.message_hub
    with caplog.at_level('WARNING', 'zero_ap'):
        validate(ZeroAPHook(), runner, -1.0)
    assert 'looking for causes failed' in caplog.text
