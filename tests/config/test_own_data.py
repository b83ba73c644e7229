"""Datasets of other people: what `--data` makes of a config, and whole runs with it."""

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from own_layouts import LAYOUTS

from mpvit.config.own_data import backbone_channels, fit_neck, palette, use_dataset
from mpvit.config.reading import leaf_datasets, load_config
from mpvit.datasets.layout import find_test_data, find_training_data
from mpvit.engine.build import check_data
from mpvit.errors import UserError

NAMES = ('circle', 'square', 'triangle', 'star', 'cross', 'digit')
SPLITS = ('train', 'val', 'test')


@pytest.fixture(scope='module')
def layouts(toy, tmp_path_factory):
    """The session's toy dataset in every foreign layout."""
    folder = tmp_path_factory.mktemp('own')
    return {name: write(toy, folder / name) for name, write in LAYOUTS.items()}


@pytest.fixture
def config(root):
    """The tiny config, which is for the toy dataset."""
    return load_config(root / 'tests' / 'data' / 'tiny.py')


def built(dataset):
    init_default_scope('mmdet')
    return DATASETS.build(dict(dataset, pipeline=[]))


def records(dataset):
    """File contents and boxes of every image in order, without the ids and paths."""
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    keys = ('bbox', 'bbox_label', 'ignore_flag')
    return [
        (open(info['img_path'], 'rb').read(), [[i[key] for key in keys] for i in info['instances']])
        for info in infos
    ]


@pytest.mark.parametrize('name', LAYOUTS)
def test_a_config_follows_the_data(name, layouts, config, toy):
    plain = {split: config[f'{split}_dataloader'].dataset.copy() for split in SPLITS}
    config.model.bbox_head.num_classes = 80
    use_dataset(config, find_training_data(layouts[name]))
    assert config.model.bbox_head.num_classes == 6
    check_data(config, *SPLITS)
    for split in SPLITS:
        dataset = config[f'{split}_dataloader'].dataset
        assert dataset.type == 'OfficialCocoDataset'
        assert dataset.pipeline == plain[split].pipeline
        assert dataset.get('test_mode') == plain[split].get('test_mode')
        own = built(dataset)
        assert own.metainfo['classes'] == NAMES
        assert len(set(own.metainfo['palette'])) == 6
        assert records(own) == records(built(dict(plain[split], data_root=str(toy))))
        if split != 'train':
            assert config[f'{split}_evaluator'].ann_file == own.ann_file


def test_a_written_config_is_complete(layouts, config, tmp_path):
    use_dataset(config, find_training_data(layouts['roboflow']))
    config.dump(tmp_path / 'written.py')
    again = Config.fromfile(tmp_path / 'written.py')
    assert again._cfg_dict == config._cfg_dict
    assert str(layouts['roboflow']) in again.val_evaluator.ann_file


def test_wrappers_stay_and_several_datasets_become_one(layouts, config):
    leaf = config.train_dataloader.dataset
    several = ConfigDict(type='ConcatDataset', datasets=[leaf, leaf])
    config.train_dataloader.dataset = ConfigDict(type='RepeatDataset', times=3, dataset=several)
    use_dataset(config, find_training_data(layouts['coco_2017']))
    assert config.train_dataloader.dataset.times == 3
    (own,) = leaf_datasets(config.train_dataloader.dataset)
    assert len(built(own)) == 8


def test_a_test_split_and_named_files(layouts, config, tmp_path):
    root = layouts['coco_2017']
    named = str(root / 'annotations' / 'instances_val2017.json')
    layout = find_test_data(None, val_ann=named)
    use_dataset(config, layout)
    assert config.test_evaluator.ann_file == named
    dataset = built(config.test_dataloader.dataset)
    assert (dataset.ann_file, len(dataset)) == (named, 6)
    assert config.train_dataloader.dataset.type == 'ToyDataset'


def test_relative_folders_stay_relative(layouts, config, monkeypatch):
    root = layouts['folders_in_names']
    monkeypatch.chdir(root.parent)
    use_dataset(config, find_training_data(root.name))
    dataset = config.train_dataloader.dataset
    assert (dataset.data_root, dataset.ann_file) == (root.name, 'annotations/train.json')
    assert dataset.data_prefix.img == 'images'
    assert config.data_root == root.name
    check_data(config, *SPLITS)


def test_a_model_without_a_single_head_is_refused(layouts, config):
    config.model.bbox_head = [config.model.bbox_head]
    with pytest.raises(UserError, match='model.bbox_head'):
        use_dataset(config, find_training_data(layouts['coco_2017']))


def test_the_neck_follows_the_backbone(config):
    assert fit_neck(config) is None
    config.model.backbone.arch.embed_dims = (16, 24, 48, 56)
    assert backbone_channels(config) == [48, 56]
    assert 'model.neck.in_channels' in fit_neck(config)
    assert config.model.neck.in_channels == [48, 56]


def test_colours_differ():
    colours = np.array(palette(90))
    assert colours.min() >= 0
    assert colours.max() <= 255
    assert len({tuple(colour) for colour in colours.tolist()}) == 90
