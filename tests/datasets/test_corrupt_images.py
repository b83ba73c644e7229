"""Images that cannot be read in mid-epoch, and annotations that contradict themselves."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from mpvit.datasets.annotations import Split
from mpvit.datasets.check import inspect_dataset
from mpvit.datasets.toy import CLASSES
from mpvit.errors import UserError

LOAD = dict(type='LoadImageFromFile', imdecode_backend='pillow')
PIPELINE = [LOAD, dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]


@pytest.fixture
def folder(toy, tmp_path):
    """A copy of the toy dataset to do harm to."""
    shutil.copytree(toy, tmp_path / 'toy')
    return tmp_path / 'toy'


def build(folder, split='train', pipeline=PIPELINE, **options):
    init_default_scope('mmdet')
    settings = dict(
        type='OfficialCocoDataset',
        data_root=f'{folder}/',
        ann_file=f'annotations/instances_{split}2017.json',
        data_prefix=dict(img=f'{split}2017/'),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=False, min_size=0),
        test_mode=split == 'val',
        pipeline=pipeline,
    )
    return DATASETS.build(settings | options)


def image(dataset, index):
    return Path(dataset.get_data_info(index)['img_path'])


def truncate(path):
    path.write_bytes(path.read_bytes()[:-300])


HARM = {
    'truncated': (truncate, 'truncated'),
    'garbage': (lambda p: p.write_bytes(b'\xff\xd8' + bytes(200)), 'no image'),
    'text': (lambda p: p.write_text('Not an image'), 'no image'),
    'empty': (lambda p: p.write_bytes(b''), 'empty'),
    'missing': (lambda p: p.unlink(), 'not exist'),
    'pipe': (lambda p: (p.unlink(), os.mkfifo(p)), 'named pipe'),
    'PostScript': (lambda p: p.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0'), 'no image of the kinds'),
}


@pytest.mark.parametrize('kind', HARM)
def test_an_image_that_cannot_be_read_ends_training_with_its_name(folder, kind):
    dataset = build(folder)
    harm, reason = HARM[kind]
    harm(image(dataset, 3))
    dataset[2]
    with pytest.raises(UserError, match=f'image .*{reason}') as raised:
        dataset[3]
    message = str(raised.value)
    assert f'image {image(dataset, 3)} ' in message
    assert f'run mpvit check_dataset {folder}/' in message
    assert 'train_dataloader.dataset.max_skipped_images' in message
    assert raised.value.every_rank


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can become another user')
def test_an_image_without_permission(toy):
    with tempfile.TemporaryDirectory() as open_folder:  # pytest's own is closed to other users
        folder = shutil.copytree(toy, Path(open_folder) / 'toy')
        os.chmod(open_folder, 0o755)
        dataset = build(folder)
        image(dataset, 0).chmod(0)
        os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=r'cannot be read \(no permission\)'):
                dataset[0]
        finally:
            os.seteuid(0)


def test_errors_from_elsewhere_pass(folder):
    class Broken:
        def __call__(self, results):
            raise ZeroDivisionError

    dataset = build(folder, pipeline=[LOAD, Broken()], max_skipped_images=5)
    with pytest.raises(ZeroDivisionError):
        dataset[0]


def test_another_image_takes_the_place_and_each_is_counted_once(folder, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mpvit.datasets.unreadable_images.print_log', lambda text, **options: lines.append(text)
    )
    dataset = build(folder, max_skipped_images=2)
    for index in (1, 4):
        truncate(image(dataset, index))
    np.random.seed(0)
    first = [dataset[index]['data_samples'].img_id for index in range(8)]
    wanted = [dataset.get_data_info(index)['img_id'] for index in range(8)]
    assert [i for i in range(8) if first[i] != wanted[i]] == [1, 4]
    shown = '\n'.join(lines)
    assert f'{image(dataset, 1)} cannot be read' in shown
    assert shown.count('another one takes its place') == 2
    assert '1 of at most 2' in shown
    assert '2 of at most 2' in shown
    # the next epoch meets the same images; the random numbers decide which ones stand in
    np.random.seed(0)
    assert [dataset[index]['data_samples'].img_id for index in range(8)] == first
    assert dataset._skipped.count == 2

    truncate(image(dataset, 6))
    with pytest.raises(UserError, match='max_skipped_images=2'):
        dataset[6]


def test_workers_count_together_and_their_error_arrives_as_one_line(folder):
    dataset = build(folder, max_skipped_images=3)

    def load(order):  # by two workers in turn
        return list(DataLoader(dataset, sampler=order, num_workers=2, collate_fn=list))

    for index in (0, 2):
        truncate(image(dataset, index))
    assert len(load(range(4))) == 4  # one of them meets two
    for index in (4, 6):
        truncate(image(dataset, index))
    with pytest.raises(UserError) as raised:
        load(range(7, 3, -1))  # the other meets two more
    (line,) = str(raised.value).split('\n')
    assert f'image {folder}/train2017/' in line
    assert 'train_dataloader.dataset.max_skipped_images=3' in line
    assert raised.value.every_rank


def test_evaluation_leaves_no_image_out(folder):
    dataset = build(folder, 'val', max_skipped_images=5)
    truncate(image(dataset, 0))
    with pytest.raises(UserError, match='evaluation'):
        dataset[0]


@pytest.mark.parametrize('gone', ['', 'train2017'])
def test_a_folder_that_vanishes_has_its_own_line(folder, gone):
    dataset = build(folder, max_skipped_images=100)
    dataset[0]
    (folder / gone).rename(folder.parent / 'elsewhere')
    with pytest.raises(UserError, match=f'data folder {folder}/{gone}.* is gone') as raised:
        dataset[1]
    assert '--resume' in str(raised.value)


ANNOTATIONS = {
    'nan': (lambda c: c['annotations'][0].update(bbox=[1, 2, float('nan'), 4]), 'finite numbers'),
    'infinite': (lambda c: c['annotations'][0].update(bbox=[1, 2, 3, 1e999]), 'finite numbers'),
    'three numbers': (lambda c: c['annotations'][0].update(bbox=[1, 2, 3]), r'\[1, 2, 3\]'),
    'text': (lambda c: c['annotations'][0].update(bbox='1 2 3 4'), "'1 2 3 4'"),
    'null': (lambda c: c['annotations'][0].update(bbox=None), 'bbox missing'),
    'doubles': (lambda c: c['images'].append(dict(c['images'][0])), '1 images have the id'),
    'no images': (lambda c: c['images'].clear(), 'lists no image'),
    'no annotations': (lambda c: c['annotations'].clear(), 'no box to train on'),
    'no categories': (lambda c: c['categories'].clear(), 'no category'),
    'no area': (lambda c: [a.update(bbox=[-9, -9, 5, 5]) for a in c['annotations']], 'no box'),
}


@pytest.mark.parametrize('kind', ANNOTATIONS)
def test_annotations_that_cannot_be_meant(folder, kind):
    edit, message = ANNOTATIONS[kind]
    path = folder / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f'annotation file .*{message}'):
        build(folder)


def test_a_folder_may_be_called_like_a_scheme(folder):
    """Checker and training read the same file."""
    name, file = spoil_name(folder, 'x://{}')
    dataset = build(folder)
    paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    index = next(i for i, path in enumerate(paths) if path.endswith(name))
    assert dataset[index]['inputs'].shape[0] == 3
    found = inspect_dataset(Split(file, folder / 'train2017'))
    codes = {problem.code for problem in found.problems}
    assert not codes & {'image-missing', 'image-unreadable', 'no-image-found'}


def spoil_name(folder, pattern):
    """Move an image to where ``pattern`` says, and tell the annotation file."""
    file = folder / 'annotations' / 'instances_train2017.json'
    content = json.loads(file.read_text())
    image = content['images'][0]
    name = pattern.format(image['file_name'])
    target = folder / 'train2017' / name
    target.parent.mkdir(parents=True)
    (folder / 'train2017' / image['file_name']).rename(target)
    image['file_name'] = name
    file.write_text(json.dumps(content))
    return name, file
