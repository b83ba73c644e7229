"""Trainings refuse data that would spoil them, before the first step."""

import json
import logging
import shutil
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mpvit.config.own_data import use_dataset
from mpvit.datasets.layout import find_training_data
from mpvit.engine.data_check import refuse_bad_data
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
