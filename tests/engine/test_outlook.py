"""Trainings that can hardly succeed are told so before they start; the others are not."""

import json
import os
import re
import time
from types import SimpleNamespace

import pytest

from mpvit.config.own_data import use_dataset
from mpvit.config.reading import load_config
from mpvit.datasets.annotations import Split, read_annotations
from mpvit.datasets.layout import Layout
from mpvit.engine.hooks import screen
from mpvit.engine.hooks.screen import ScreenHook
from mpvit.engine.outlook import outlook, warn_of_outlook

SMALL = 'smaller than 16 px'


@pytest.fixture
def data(tmp_path):
    """Write COCO files of as many images, with as many boxes of a size in each."""

    def write(images, sides, size=(640, 480)):
        folder = tmp_path / 'data'
        folder.mkdir(exist_ok=True)
        width, height = size
        for split, number in dict(train=images, val=1).items():
            listed = [
                dict(id=i, file_name=f'{i}.jpg', width=width, height=height) for i in range(number)
            ]
            boxes = [
                dict(id=i * len(sides) + n, image_id=i, category_id=1, bbox=[1, 1, side, side],
                     area=side * side, iscrowd=0)
                for i in range(number)
                for n, side in enumerate(sides)
            ]  # fmt: skip
            content = dict(images=listed, annotations=boxes, categories=[dict(id=1, name='tree')])
            (folder / f'{split}.json').write_text(json.dumps(content))
        splits = {n: Split(str(folder / f'{n}.json'), str(folder)) for n in ('train', 'val')}
        return Layout(None, ('tree',), None, splits, dict(train=images, val=1))

    return write


def configured(layout, name='mpvit_t_ddetr_toy', **entries):
    config = load_config(name, edit=lambda config: use_dataset(config, layout))
    config.update(entries)
    return config


def lines(*arguments, **entries):
    return list(outlook(configured(*arguments, **entries)))


def test_few_images(data):
    layout = data(300, [200])
    (line,) = lines(layout)
    assert re.match('300 images with objects are too few .*random numbers.*--preset finetune', line)
    (line,) = lines(layout, 'mpvit_t_ddetr_50e')  # with ImageNet weights
    assert re.match('300 images with objects are few .*backbone.*--preset finetune', line)
    assert lines(layout, load_from='detector.pth') == []


def test_enough_images(data):
    assert lines(data(2000, [200])) == []


def test_data_that_a_recipe_is_made_for(tiny):
    config = load_config(*tiny)
    assert list(outlook(config)) == []
    config.train_dataloader.dataset.type = 'OfficialCocoDataset'
    config.train_dataloader.dataset.pop('spec')
    assert len(list(outlook(config))) == 1


@pytest.mark.parametrize(
    ('sides', 'advice'),
    [
        # 640 px become 128: 40 px are 8 there, and 16 at 256
        ([40, 40, 200], '67% .*longest side 128.*--image-size 256$'),
        ([28, 200], '50% .*--image-size 384$'),
        ([40, 200, 200], None),
        # not even at their own size are 10 px enough: tiles of 640 * 10 / 16
        ([10], '100% .*tiles of about 64 px$'),
    ],
)
def test_small_objects(data, sides, advice):
    found = lines(data(20, sides), load_from='detector.pth')
    assert len(found) == (advice is not None)
    if advice:
        assert SMALL in found[0]
        assert re.match(advice, found[0])


def test_small_objects_where_the_short_side_is_set(data):
    # 2000 x 1600 px become 1000 x 800, and at 1600 x 1280 the limit of the long side is 2133
    layout = data(20, [20], size=(2000, 1600))
    (line,) = lines(layout, 'mpvit_s_ddetr_50e', load_from='detector.pth')
    assert line.endswith('(longest side 1333): objects of this size are rarely found; use '
                         '--image-size 2144')  # fmt: skip


def test_more_objects_than_queries(data):
    layout = data(3, [200] * 40)
    (line,) = lines(layout, load_from='detector.pth')
    assert line.startswith('3 images have more objects')
    assert line.endswith('(30; up to 40 are there): cut the images into tiles, or use '
                         '--cfg-options model.num_queries=40')  # fmt: skip
    assert lines(data(3, [200] * 30), load_from='detector.pth') == []
    (line,) = lines(data(3, [200] * 101), 'mpvit_s_ddetr_50e', load_from='detector.pth')
    assert line.endswith('--cfg-options model.test_cfg.max_per_img=101')


def test_resumed_trainings_and_classifiers_are_left_alone(data):
    config = configured(data(300, [200]))
    said = []
    runner = SimpleNamespace(cfg=config, logger=SimpleNamespace(warning=said.append))
    warn_of_outlook(runner)
    assert len(said) == 1
    config.update(resume=True, load_from='epoch_3.pth')
    warn_of_outlook(runner)
    runner.cfg = load_config('mpvit_t_digits')
    warn_of_outlook(runner)
    assert len(said) == 1


def test_a_large_dataset_takes_little_time(data):
    layout = data(20000, [20] * 5, size=(2000, 1600))
    config = configured(layout, 'mpvit_s_ddetr_50e')
    path = layout.splits['train'].ann_file
    os.utime(path, (0, 0))  # what was just written is read anew each time
    truth = read_annotations(path)
    assert truth.usable.all()  # which the dataset itself has asked for
    start = time.process_time()
    assert len(list(outlook(config))) == 1
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(('seconds', 'steps', 'days'), [(24, 18000, '5.0'), (1, 18000, None)])
def test_a_long_training_is_foretold(monkeypatch, capsys, seconds, steps, days):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(screen.time, 'monotonic', lambda: clock.now)
    logged = []
    wrapper = SimpleNamespace(optimizer=SimpleNamespace(param_groups=[dict(lr=0.1)]))
    history = SimpleNamespace(mean=lambda window: 1.0)
    runner = SimpleNamespace(
        iter=0,
        max_iters=steps,
        cfg=load_config('mpvit_t_ddetr_toy'),
        optim_wrapper=wrapper,
        message_hub=SimpleNamespace(log_scalars={'train/loss': history}),
        logger=SimpleNamespace(info=logged.append),
    )
    hook = ScreenHook()
    clock.now = 1000  # a slow start does not count
    for runner.iter in range(40):
        clock.now += seconds
        hook.after_train_iter(runner, 0)
    found = re.findall(r'At .* takes (.*) days on this [CG]PU; .*--epochs', '\n'.join(logged))
    assert found == ([days] if days else [])
    assert capsys.readouterr().out.count('days') == len(found)
