"""YOLO and Pascal VOC folders become COCO-format datasets with the same boxes."""

import json
import os
import shutil
import sys

import pytest
from own_layouts import split_of_toy, voc, yolo
from PIL import Image

from mpvit.datasets.conversion import convert_dataset
from mpvit.datasets.layout import find_training_data
from mpvit.errors import UserError


def by_image(content, prefix=''):
    """Size, classes and boxes of each image by its file name."""
    names = {category['id']: category['name'] for category in content['categories']}
    by_id = {image['id']: [(image['width'], image['height'])] for image in content['images']}
    for note in content['annotations']:
        box = [round(number, 3) for number in note['bbox']]
        by_id[note['image_id']].append((names[note['category_id']], box))
    return {prefix + image['file_name']: by_id[image['id']] for image in content['images']}


def assert_same(toy, target, prefix=''):
    layout = find_training_data(target)
    for split in ('train', 'val'):
        content = json.loads(layout.splits[split].ann_file.read_text())
        assert [c['name'] for c in content['categories']] == list(layout.classes)
        assert by_image(content) == by_image(split_of_toy(toy, split)[0], prefix.format(split))
        ids = [note['id'] for note in content['annotations']]
        assert len(set(ids)) == len(ids)
        assert min(ids) >= 1
    return layout


def test_yolo(toy, tmp_path):
    lines = convert_dataset(yolo(toy, tmp_path / 'yolo'), tmp_path / 'coco')
    layout = assert_same(toy, tmp_path / 'coco')
    assert layout.classes == ('circle', 'square', 'triangle', 'star', 'cross', 'digit')
    assert lines[0].endswith('is in YOLO format')
    assert lines[1].startswith('train: 8 images, ')
    assert len(lines) == 3


@pytest.mark.parametrize('beside', [False, True])
def test_pascal_voc(toy, tmp_path, beside):
    lines = convert_dataset(voc(toy, tmp_path / 'voc', beside), tmp_path / 'coco')
    layout = assert_same(toy, tmp_path / 'coco', prefix='{}_')
    assert list(layout.classes) == sorted(layout.classes)
    assert lines[0].endswith('is in Pascal VOC format')


def boxes_of(target, split='train'):
    """Name and ``(x, y, width, height)`` of every box."""
    content = json.loads((target / 'annotations' / f'instances_{split}.json').read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    return [
        (names[note['category_id']], [round(number, 3) for number in note['bbox']])
        for note in content['annotations']
    ]


WIDE = 1000  # pixels


@pytest.fixture
def folder(tmp_path):
    """Two empty splits with an image."""
    for split in ('train', 'val'):
        for name in ('images', 'labels'):
            (tmp_path / 'data' / name / split).mkdir(parents=True)
        Image.new('1', (WIDE, WIDE)).save(tmp_path / 'data' / 'images' / split / 'a.png')
    return tmp_path / 'data'


@pytest.fixture
def no_masks(monkeypatch):
    """Masks fail: each is as large as its image."""

    def refuse(*arguments, **options):
        raise AssertionError('a mask was drawn')

    for kind in ('yolo', 'pascal_voc'):
        monkeypatch.setattr(f'supervision.dataset.formats.{kind}.polygon_to_mask', refuse)


def test_yolo_polygons_become_boxes_without_masks(folder, tmp_path, no_masks):
    polygon = '0 0.1 0.1 0.2 0.1 0.25 0.3'
    lines = [polygon, f'{polygon} 0.9', '1 0.5 0.5 0.2 0.1', '1 0.5 0.5 0.2 0.1 0.9', '']
    for split in ('train', 'val'):
        (folder / 'labels' / split / 'a.txt').write_text('\n'.join(lines))
    (folder / 'data.yaml').write_text('names: [a, b]\n')
    convert_dataset(folder, tmp_path / 'coco')
    expected = [('a', [100, 100, 150, 200])] * 2 + [('b', [400, 450, 200, 100])] * 2
    assert boxes_of(tmp_path / 'coco') == boxes_of(tmp_path / 'coco', 'val') == expected


def test_yolo_keypoints_are_left_out(folder, tmp_path):
    line = '1 0.5 0.5 0.2 0.1 0.41 0.46 2 0.5 0.5 2'  # would be a polygon otherwise
    for split in ('train', 'val'):
        (folder / 'labels' / split / 'a.txt').write_text(line)
    (folder / 'data.yaml').write_text('names: [a, b]\nkpt_shape: [2, 3]\n')
    convert_dataset(folder, tmp_path / 'coco')
    assert boxes_of(tmp_path / 'coco') == [('b', [400, 450, 200, 100])]


def test_voc_polygons_are_left_out(folder, tmp_path, no_masks):
    box = '<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>50</xmax><ymax>60</ymax></bndbox>'
    polygon = '<polygon><x1>11</x1><y1>21</y1><x2>50</x2><y2>21</y2><x3>9</x3><y3>60</y3></polygon>'
    text = f'<annotation><object><name>a</name>{polygon}{box}{polygon}</object></annotation>'
    for split in ('train', 'val'):
        (folder / split).mkdir()
        (folder / 'images' / split / 'a.png').rename(folder / split / 'a.png')
        (folder / split / 'a.xml').write_text(text)
    shutil.rmtree(folder / 'images')
    shutil.rmtree(folder / 'labels')
    convert_dataset(folder, tmp_path / 'coco')
    assert boxes_of(tmp_path / 'coco') == [('a', [10, 20, 40, 40])]


@pytest.mark.parametrize('line', ['2 0.5 0.5 0.1 0.1', '-1 0.5 0.5 0.1 0.1', 'a 0 0 1 1', '0 1 2'])
def test_labels_that_are_refused(line, folder, tmp_path):
    (folder / 'data.yaml').write_text('names: [a, b]\n')
    for split in ('train', 'val'):
        (folder / 'labels' / split / 'a.txt').write_text(line)
    with pytest.raises(UserError, match=r'train/a\.(txt|png)'):
        convert_dataset(folder, tmp_path / 'coco')


@pytest.mark.parametrize(
    ('name', 'spoil', 'reason'),
    [
        ('data.yaml', lambda path: path.write_text('names: [a'), 'YAML'),
        ('labels/train/a.txt', lambda path: (path.unlink(), os.mkfifo(path)), 'a named pipe'),
        ('images/val/a.png', lambda path: path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0'), 'kinds'),
    ],
)
def test_hostile_files_are_refused(folder, tmp_path, name, spoil, reason):
    (folder / 'data.yaml').write_text('names: [a]')
    for split in ('train', 'val'):
        (folder / 'labels' / split / 'a.txt').touch()
    spoil(folder / name)
    with pytest.raises(UserError, match=reason):
        convert_dataset(folder, tmp_path / 'coco')
    assert not (tmp_path / 'coco').exists()


def test_mistakes(toy, tmp_path, monkeypatch):
    root = yolo(toy, tmp_path / 'yolo')
    (tmp_path / 'there').mkdir()
    with pytest.raises(UserError, match='there exists already'):
        convert_dataset(root, tmp_path / 'there')
    with pytest.raises(UserError, match='YOLO nor Pascal VOC'):
        convert_dataset(tmp_path / 'there', tmp_path / 'coco')
    label = next((root / 'labels' / 'train').iterdir())
    label.write_text('0 0.5 0.5')
    with pytest.raises(UserError, match=label.name):
        convert_dataset(root, tmp_path / 'coco')
    shutil.rmtree(root / 'labels' / 'val')
    label.unlink()
    with pytest.raises(UserError, match='labels/val'):
        convert_dataset(root, tmp_path / 'coco')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['there', 'yolo']
    monkeypatch.setitem(sys.modules, 'supervision', None)
    with pytest.raises(UserError, match='supervision'):
        convert_dataset(root, tmp_path / 'coco')
