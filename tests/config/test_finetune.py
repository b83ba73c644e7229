"""The recipe of `--preset finetune`."""

import copy
import json

import pytest
import torch
from mmengine.registry import HOOKS
from PIL import Image

from mpvit.checkpoints.class_layers import with_queries
from mpvit.config.finetune import Facts, epochs_for, finetune, image_size
from mpvit.config.flags import TrainingFlags
from mpvit.config.own_data import config_on
from mpvit.config.reading import load_config
from mpvit.datasets.layout import find_training_data
from mpvit.errors import UserError


def facts(small=0.1, images=300, most=7):
    return Facts(images, small, most)


@pytest.mark.parametrize(
    ('small', 'own', 'expected'),
    [
        (0.1, 128, 256),
        (0.5, 128, 128),  # never below the config's own
        (0.001, 128, 640),  # nor above what is usual
        (0.1, 1333, 640),
        (0.021, 1333, 1152),
        (0.001, 1333, 1333),
    ],
)
def test_the_image_size_follows_the_objects(small, own, expected):
    assert image_size(facts(small), own) == expected


def test_fewer_epochs_for_more_images_but_more_steps():
    sizes = [50, 300, 1000, 5000, 50_000]
    epochs = [epochs_for(count) for count in sizes]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] >= 8
    seen = [e * s for e, s in zip(epochs, sizes, strict=True)]
    assert seen == sorted(seen)
    for count, usual in zip(sizes, epochs, strict=True):
        assert 8 <= epochs_for(count, slow=True) <= usual


@pytest.fixture
def dataset(tmp_path):
    """Two splits of 3 images of 400x300 px with two kinds of boxes; the first has 40 of them."""
    for split in ('train', 'val'):
        images, boxes = [], []
        for index in range(3):
            name = f'{index}.png'
            (tmp_path / split).mkdir(exist_ok=True)
            Image.new('RGB', (400, 300)).save(tmp_path / split / name)
            images.append(dict(id=index, file_name=name, width=400, height=300))
            for number in range(40 if index == 0 else 2):
                box = [number * 5, 10, 36, 36]
                boxes.append(
                    dict(id=len(boxes), image_id=index, category_id=1, bbox=box, area=1296)
                )
        content = dict(images=images, annotations=boxes, categories=[dict(id=1, name='tree')])
        file = tmp_path / 'annotations' / f'{split}.json'
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return tmp_path


def fine_tuned(dataset, name, *options):
    lines = []
    layout = find_training_data(dataset)
    config, _ = config_on(layout, name, options, edit=lambda c: lines.append(finetune(c)))
    return config, *lines


def test_the_toy_detector(dataset):
    config, line = fine_tuned(dataset, 'mpvit_t_ddetr_toy')
    assert config.model.num_queries == 80  # twice the objects of the fullest image
    assert config.model.test_cfg.max_per_img == 100
    assert config.model.backbone.frozen_stages == 1
    assert config.train_dataloader.batch_size == 4
    (test,) = [s for s in config.test_dataloader.dataset.pipeline if 'Resize' in s.type]
    assert test.scale == (256, 256)
    hooks = [hook.type for hook in config.custom_hooks]
    assert {'EMAHook', 'EarlyStoppingHook'} <= set(hooks)
    for fact in ('3 images', '256 px', '80 queries'):
        assert fact in line


def test_queries_that_do_not_come_from_proposals_stay(dataset):
    assert fine_tuned(dataset, 'mpvit_s_ddetr_50e')[0].model.num_queries == 300
    assert fine_tuned(dataset, 'mpvit_t_dino_toy')[0].model.num_queries == 80


def test_the_class_layers_have_a_higher_learning_rate(dataset):
    for name in ('mpvit_s_ddetr_50e', 'mpvit_t_ddetr_toy'):
        config, _ = fine_tuned(dataset, name)
        assert config.optim_wrapper.paramwise_cfg.custom_keys.cls_branches.lr_mult > 1
    config, _ = fine_tuned(dataset, 'mpvit_s_ddetr_50e')
    assert config.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == 0.1  # the config's


def test_an_evaluation_that_gains_little_goes_on():
    config = load_config('mpvit_s_ddetr_50e', edit=TrainingFlags(early_stop=2).apply)
    hook = HOOKS.build(next(h for h in config.custom_hooks if h.type == 'EarlyStoppingHook'))
    gains = [0.010, 0.015, 0.020, 0.025, 0.030, 0.0301, 0.0302]
    stops = [hook._check_stop_condition(ap)[0] for ap in gains]
    assert stops == [False] * 6 + [True]


def test_a_fine_tuned_detector_is_fine_tuned_the_same_way(dataset):
    once, _ = fine_tuned(dataset, 'mpvit_t_dino_toy')
    twice = copy.deepcopy(once)
    finetune(twice)
    assert twice.optim_wrapper == once.optim_wrapper
    assert [h.type for h in twice.custom_hooks] == [h.type for h in once.custom_hooks]
    assert once.optim_wrapper.optimizer.lr == pytest.approx(2e-3 * 0.75 / 2)  # a batch of 4, not 16


def test_a_longer_training_is_evaluated_as_often(dataset):
    config, _ = fine_tuned(dataset, 'mpvit_t_dino_toy')
    finetune(config, TrainingFlags(epochs=400))
    assert (config.train_cfg.max_epochs, config.train_cfg.val_interval) == (400, 40)


def test_training_images_are_as_large_as_those_of_the_evaluation(dataset):
    for name, scale in (('mpvit_s_ddetr_50e', (154, 256)), ('mpvit_t_dino_toy', (256, 256))):
        config, _ = fine_tuned(dataset, name)
        (test,) = [s for s in config.test_dataloader.dataset.pipeline if 'Resize' in s.type]
        train = config.train_dataloader.dataset.pipeline
        (resize,) = [s for s in train if s.type == 'RandomResize']
        assert sorted(resize.scale) == sorted(test.scale) == list(scale)


def test_not_more_queries_than_proposals(dataset, monkeypatch):
    monkeypatch.setattr(Facts, 'of', lambda config: facts(most=5000))
    config, _ = fine_tuned(dataset, 'mpvit_t_dino_toy')
    assert config.model.num_queries == 512  # of the 1,280 points of a map of 256 px


def test_what_the_user_chose_stays_and_is_said(dataset):
    chosen = TrainingFlags(epochs=7, batch_size=2, image_size=320, lr=1e-3, freeze=-1, early_stop=9)
    lines = []
    config, _ = config_on(
        find_training_data(dataset),
        'mpvit_t_dino_toy',
        edit=lambda c: lines.append(finetune(c, chosen)),
    )
    assert config.train_cfg.max_epochs == 7
    assert config.train_dataloader.batch_size == 2
    assert config.optim_wrapper.optimizer.lr == 1e-3
    assert not config.auto_scale_lr.enable
    assert config.model.backbone.frozen_stages == -1
    (stop,) = [h for h in config.custom_hooks if h.type == 'EarlyStoppingHook']
    assert stop.patience == 9
    train = config.train_dataloader.dataset.pipeline
    assert next(s for s in train if s.type == 'RandomCrop').crop_size == (320, 320)
    (line,) = lines
    for fact in ('7 epochs', '320 px', 'batch 2', 'after 9 evaluations'):
        assert fact in line
    assert 'frozen' not in line


def test_a_classifier_and_empty_data_are_refused(dataset):
    with pytest.raises(UserError, match='classifier'):
        fine_tuned(dataset, 'mpvit_t_digits')
    file = dataset / 'annotations' / 'train.json'
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | dict(annotations=[])))
    with pytest.raises(UserError, match='no box'):
        fine_tuned(dataset, 'mpvit_t_ddetr_toy')


def test_learned_queries_of_a_dino_are_repeated():
    weights = {
        'query_embedding.weight': torch.arange(6.0).reshape(3, 2),
        'dn_query_generator.label_embedding.weight': torch.zeros(4, 2),
    }
    more = with_queries(weights, 7)['query_embedding.weight']
    assert more[:, 0].tolist() == [0, 2, 4, 0, 2, 4, 0]
    assert with_queries(weights, 2).keys() == weights.keys()
    assert len(with_queries(weights, 2)['query_embedding.weight']) == 3
    single = {'query_embedding.weight': torch.zeros(3, 2)}  # of a Deformable DETR: positions
    assert len(with_queries(single, 7)['query_embedding.weight']) == 3
