"""YOLO and Pascal VOC folders become COCO-format datasets with the same boxes."""

import json
import shutil
import sys

import pytest
from own_layouts import split_of_toy

from mpvit.datasets.conversion import convert_dataset
from mpvit.datasets.layout import find_training_data
from mpvit.errors import UserError


def by_image(content):
    """Names, sizes, classes and boxes of each image by its file name."""
    names = {category['id']: category['name'] for category in content['categories']}
    found = {
        image['file_name']: (image['width'], image['height'], []) for image in content['images']
    }
    files = {image['id']: image['file_name'] for image in content['images']}
    for note in content['annotations']:
        found[files[note['image_id']]][2].append((names[note['category_id']], note['bbox']))
    return found


def write_yolo(toy, root):
    """Ultralytics' layout; the images without objects have no label file."""
    for split in ('train', 'val'):
        content, images = split_of_toy(toy, split)
        shutil.copytree(images, root / 'images' / split)
        (root / 'labels' / split).mkdir(parents=True)
        for image in content['images']:
            lines = []
            for note in content['annotations']:
                if note['image_id'] == image['id']:
                    x, y, w, h = note['bbox']
                    numbers = [
                        (x + w / 2) / image['width'],
                        (y + h / 2) / image['height'],
                        w / image['width'],
                        h / image['height'],
                    ]
                    lines.append(' '.join(map(str, [note['category_id'] - 1, *numbers])))
            if lines:
                name = image['file_name'].replace('.jpg', '.txt')
                (root / 'labels' / split / name).write_text('\n'.join(lines))
    names = [category['name'] for category in content['categories']]
    (root / 'data.yaml').write_text(f'train: images/train\nval: images/val\nnames: {names}\n')
    return root


def xml_of(image, notes, names):
    objects = ''.join(
        '<object><name>{}</name><difficult>0</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>'
        '<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'.format(
            names[note['category_id']],
            note['bbox'][0] + 1,  # VOC counts from 1
            note['bbox'][1] + 1,
            note['bbox'][0] + note['bbox'][2],
            note['bbox'][1] + note['bbox'][3],
        )
        for note in notes
    )
    return f'<annotation><filename>{image["file_name"]}</filename>{objects}</annotation>'


def write_voc(toy, root, beside):
    """VOC's own layout with lists of the splits, or XML files beside the images of each split."""
    for split in ('train', 'val'):
        content, images = split_of_toy(toy, split)
        names = {category['id']: category['name'] for category in content['categories']}
        listed = []
        for image in content['images']:
            notes = [n for n in content['annotations'] if n['image_id'] == image['id']]
            stem = f'{split}_{image["file_name"][:-4]}'
            pictures = root / (split if beside else 'JPEGImages')
            texts = root / (split if beside else 'Annotations')
            for folder in (pictures, texts):
                folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(images / image['file_name'], pictures / f'{stem}.jpg')
            (texts / f'{stem}.xml').write_text(xml_of(image, notes, names))
            listed.append(stem)
        if not beside:
            lists = root / 'ImageSets' / 'Main'
            lists.mkdir(parents=True, exist_ok=True)
            (lists / f'{split}.txt').write_text('\n'.join(listed))
    return root


def assert_same(toy, target, prefix=''):
    layout = find_training_data(target)
    for split in ('train', 'val'):
        content = json.loads(layout.splits[split].ann_file.read_text())
        assert [c['name'] for c in content['categories']] == list(layout.classes)
        found, expected = by_image(content), by_image(split_of_toy(toy, split)[0])
        prefix_of_split = f'{split}_' if prefix else ''
        assert set(found) == {prefix_of_split + name for name in expected}
        for name, (width, height, notes) in expected.items():
            entry = found[prefix_of_split + name]
            assert entry[:2] == (width, height)
            assert [note[0] for note in entry[2]] == [note[0] for note in notes]
            for (_, box), (_, other) in zip(entry[2], notes, strict=True):
                assert box == pytest.approx(other, abs=1e-3)
        ids = [note['id'] for note in content['annotations']]
        assert len(set(ids)) == len(ids)
        assert min(ids) >= 1
    return layout


def test_yolo(toy, tmp_path):
    lines = convert_dataset(write_yolo(toy, tmp_path / 'yolo'), tmp_path / 'coco')
    layout = assert_same(toy, tmp_path / 'coco')
    assert layout.classes == ('circle', 'square', 'triangle', 'star', 'cross', 'digit')
    assert lines[0].endswith('is in YOLO format')
    assert lines[1].startswith('train: 8 images, ')
    assert len(lines) == 3


@pytest.mark.parametrize('beside', [False, True])
def test_pascal_voc(toy, tmp_path, beside):
    lines = convert_dataset(write_voc(toy, tmp_path / 'voc', beside), tmp_path / 'coco')
    layout = assert_same(toy, tmp_path / 'coco', prefix='split')
    assert list(layout.classes) == sorted(layout.classes)
    assert lines[0].endswith('is in Pascal VOC format')


def test_mistakes(toy, tmp_path, monkeypatch):
    yolo = write_yolo(toy, tmp_path / 'yolo')
    (tmp_path / 'there').mkdir()
    with pytest.raises(UserError, match='there exists already'):
        convert_dataset(yolo, tmp_path / 'there')
    with pytest.raises(UserError, match='YOLO nor Pascal VOC'):
        convert_dataset(tmp_path / 'there', tmp_path / 'coco')
    label = next((yolo / 'labels' / 'train').iterdir())
    label.write_text('0 0.5 0.5')
    with pytest.raises(UserError, match=label.name):
        convert_dataset(yolo, tmp_path / 'coco')
    shutil.rmtree(yolo / 'labels' / 'val')
    label.unlink()
    with pytest.raises(UserError, match='labels/val'):
        convert_dataset(yolo, tmp_path / 'coco')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['there', 'yolo']
    monkeypatch.setitem(sys.modules, 'supervision', None)
    with pytest.raises(UserError, match='supervision'):
        convert_dataset(yolo, tmp_path / 'coco')
