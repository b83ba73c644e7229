"""The digits that stand for ImageNet, and mmpretrain, which may not be there."""

import sys

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image
from sklearn.datasets import load_digits

from mpvit.datasets import imagenet
from mpvit.errors import UserError


def test_digits_are_written_once_and_read_back(tmp_path):
    root = tmp_path / 'deep' / 'digits'
    datasets = [
        DATASETS.build(dict(type='DigitsDataset', data_root=str(root), split=split, pipeline=[]))
        for split in ('train', 'val')
    ]
    assert [len(dataset) for dataset in datasets] == [1437, 360]
    truth = load_digits()
    for dataset in datasets:
        for index in (0, 200, -1):
            info = dataset.get_data_info(index)
            number = int(info['img_path'][-8:-4])
            assert info['gt_label'] == truth.target[number]
            pixels = np.asarray(Image.open(info['img_path'])) / 255 * 16
            np.testing.assert_allclose(pixels, truth.images[number], atol=1 / 16)
    assert datasets[0].metainfo['classes'] == tuple('0123456789')
    marker = root / 'train' / '3' / 'marker'
    marker.touch()
    imagenet.write_digits(root)
    assert marker.exists()
    assert [path.name for path in root.parent.iterdir()] == ['digits']


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(UserError, match='holds other files'):
        imagenet.write_digits(tmp_path)


def test_the_same_folder_is_read_by_mmpretrains_dataset(tmp_path):
    from mmpretrain.datasets import CustomDataset

    root = str(imagenet.write_digits(tmp_path / 'digits'))
    theirs = CustomDataset(root, data_prefix='val')
    ours = imagenet.DigitsDataset(root, 'val', pipeline=[])
    assert [info['gt_label'] for info in map(theirs.get_data_info, range(360))] == [
        info['gt_label'] for info in map(ours.get_data_info, range(360))
    ]


def test_without_the_extra_one_line_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmpretrain', None)
    with pytest.raises(UserError, match=r"classifiers need mmpretrain .*'mpvit\[pretrain\]'"):
        imagenet.import_mmpretrain()
    assert 'mmpretrain.models.multimodal' not in sys.modules
