"""Trainings refuse data that would spoil them, before the first step."""

import copy
import json
import logging
import shutil
from types import SimpleNamespace

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import RepeatDataset

from mpvit.config.own_data import use_dataset
from mpvit.datasets.check import inspect_dataset
from mpvit.datasets.layout import find_training_data
from mpvit.engine.data_check import coco_files, log_data, refuse_bad_data
from mpvit.errors import UserError


@pytest.fixture
def data(toy, tmp_path):
    """A copy of the toy data."""
    return shutil.copytree(toy, tmp_path / 'data')


@pytest.fixture
def runner(root, data):
    """What the check needs to know of a runner."""
    config = Config.fromfile(root / 'tests' / 'data' / 'tiny.py')
    use_dataset(config, find_training_data(data))
    return SimpleNamespace(cfg=config, logger=logging.getLogger('preflight'))


def change(data, function):
    path = data / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def test_good_data_passes(runner, caplog):
    refuse_bad_data(runner)
    (record,) = caplog.records  # so few images have few boxes of each class
    assert record.message.count('[') == record.message.count('[class-rare]') == 1


def test_missing_images_are_refused(runner, data):
    for path in (data / 'train2017').iterdir():
        path.unlink()
    with pytest.raises(UserError, match='none of .* images'):
        refuse_bad_data(runner)


def test_each_kind_of_fatal_problem_has_its_line(runner, data):
    def spoil(content):
        content['annotations'][0]['bbox'] = [1, 2, 3]
        content['annotations'][1]['bbox'] = [1, 2, 3, float('nan')]

    change(data, spoil)
    with pytest.raises(UserError) as refused:
        refuse_bad_data(runner)
    lines = str(refused.value).split('\n')
    assert [line.rsplit('[')[-1] for line in lines] == ['box-malformed]', 'box-not-finite]']


def test_what_is_not_fatal_is_summed_up(runner, data, caplog):
    def spoil(content):
        for annotation in content['annotations'][:3]:
            annotation['bbox'] = [5000, 5000, 10, 10]

    change(data, spoil)
    refuse_bad_data(runner)
    (record,) = caplog.records
    assert '(and 2 more like it) [box-outside]' in record.message


def test_the_check_can_be_left_out(runner, data):
    shutil.rmtree(data / 'train2017')
    runner.cfg.quick_check = False
    refuse_bad_data(runner)


def test_every_part_of_data_that_are_put_together_is_checked(runner, data):
    change(data, lambda content: content['annotations'][0].update(ignore='false'))
    part = runner.cfg.train_dataloader.dataset
    good = copy.deepcopy(part)
    good.ann_file = runner.cfg.val_dataloader.dataset.ann_file
    good.data_prefix = runner.cfg.val_dataloader.dataset.data_prefix
    runner.cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[good, part])
    with pytest.raises(UserError, match="ignore is 'false', not 0 or 1"):
        refuse_bad_data(runner)


def test_data_of_mmdets_own_class_are_blamed_and_not_the_config(runner, data):
    """mmdet's class would be built from these, or stop with an error of Python's."""

    def mix(content):
        for entry in content['images'][::2]:
            entry['id'] = str(entry['id'])

    change(data, mix)
    runner.cfg.train_dataloader.dataset.type = 'CocoDataset'
    with pytest.raises(UserError, match=r"train2017\.json: images\[0\]: id is '1', not an integer"):
        refuse_bad_data(runner)


def test_the_log_says_how_much_of_the_data_is_trained_on(runner, data, caplog):
    def leave_out(content):
        content['annotations'][0]['ignore'] = 1
        content['annotations'][1]['iscrowd'] = 1

    change(data, leave_out)
    content = json.loads((data / 'annotations' / 'instances_train2017.json').read_text())
    total = len(content['annotations'])
    dataset = DATASETS.build(dict(runner.cfg.train_dataloader.dataset, pipeline=[]))
    runner.train_dataloader = SimpleNamespace(dataset=RepeatDataset(dataset, 2))
    with caplog.at_level('INFO'):
        log_data(runner)
    said = f'Training data: 8 of 8 images and {total - 2} of {total} boxes of {dataset.ann_file}'
    assert said in caplog.text
    found = inspect_dataset(*coco_files(runner.cfg, 'train')[:1], workers=1)
    assert found.used['train'] == (8, total - 2)
