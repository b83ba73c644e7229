"""The drawn dataset: valid COCO format, reproducible, honest splits."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mpvit.datasets import toy as toy_module
from mpvit.datasets.toy import CLASSES, ToySpec, write_toy_dataset
from mpvit.errors import UserError

SPLITS = ('train2017', 'val2017')


@pytest.mark.parametrize('split', SPLITS)
def test_annotations_are_valid_and_tight(toy, split):
    coco = COCO(toy / 'annotations' / f'instances_{split}.json')
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert len(coco.imgs) > len({one['image_id'] for one in coco.dataset['annotations']})
    sizes = set()
    for image in coco.dataset['images']:
        picture = Image.open(toy / split / image['file_name'])
        assert picture.size == (image['width'], image['height'])
        sizes.add(picture.size)
    assert len(sizes) > 1
    for annotation in coco.dataset['annotations']:
        x, y, width, height = annotation['bbox']
        image = coco.imgs[annotation['image_id']]
        assert min(x, y) >= 0
        assert min(width, height) > 4
        assert x + width <= image['width']
        assert y + height <= image['height']
        assert annotation['area'] == width * height


def test_objects_are_really_drawn_where_the_boxes_say():
    """Of each class: what differs from the bare background is exactly the box."""
    spec = ToySpec(empty=0.0, max_objects=1)
    digits = toy_module._load_digits('val2017')
    seen = set()
    for seed in range(40):
        canvas = np.full((120, 150, 3), 100.0, np.float32)
        rng = np.random.default_rng(seed)
        ((category, box),) = toy_module._draw_objects(canvas, digits, spec, rng)
        changed = np.abs(canvas - 100).max(-1) > 50
        rows, columns = np.nonzero(changed.any(1))[0], np.nonzero(changed.any(0))[0]
        drawn = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert np.abs(np.subtract(drawn, box)).max() <= 2, (CLASSES[category], drawn, box)
        seen.add(CLASSES[category])
    assert seen == set(CLASSES)


def test_same_seed_same_files_other_seed_other_files(tmp_path):
    spec = ToySpec(train_images=3, val_images=2)
    first = write_toy_dataset(tmp_path / 'a', spec)
    again = write_toy_dataset(tmp_path / 'b', spec)
    other = write_toy_dataset(tmp_path / 'c', ToySpec(train_images=3, val_images=2, seed=1))
    files = sorted(p.relative_to(first) for p in first.rglob('*.jpg'))
    assert len(files) == 5
    assert all((first / f).read_bytes() == (again / f).read_bytes() for f in files)
    assert any((first / f).read_bytes() != (other / f).read_bytes() for f in files)


def test_train_and_val_share_neither_photos_nor_digits():
    train, val = (
        {name for names in toy_module._PHOTOS[split].values() for name in names.split()}
        for split in SPLITS
    )
    assert not train & val
    train, val = (toy_module._load_digits(split) for split in SPLITS)
    assert len(train) + len(val) == 1797
    assert len(val) == 360


def test_finished_dataset_is_kept_and_another_spec_is_refused(tmp_path):
    spec = ToySpec(train_images=2, val_images=1)
    root = write_toy_dataset(tmp_path / 'toy', spec)
    (root / 'note').write_text('still here')
    write_toy_dataset(root, spec)
    assert (root / 'note').exists()
    with pytest.raises(UserError, match='another specification'):
        write_toy_dataset(root, ToySpec(train_images=3, val_images=1))
    assert (root / 'note').exists()
    assert [p.name for p in tmp_path.iterdir()] == ['toy']  # no working folder left behind
    (root / 'toy.json').write_text('one')
    with pytest.raises(UserError, match='name another folder'):
        write_toy_dataset(root, spec)


def test_killed_run_leaves_nothing_half_done(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(toy_module, '_draw_objects', fail)
    with pytest.raises(KeyboardInterrupt):
        write_toy_dataset(tmp_path / 'toy', ToySpec(train_images=2, val_images=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('size', [(256, 512), (16, 20), (40, 400)])
def test_any_image_size(tmp_path, size):
    spec = ToySpec(train_images=4, val_images=4, min_size=size[0], max_size=size[1])
    write_toy_dataset(tmp_path / 'toy', spec)
    for picture in (tmp_path / 'toy').rglob('*.jpg'):
        assert all(size[0] <= n <= size[1] for n in Image.open(picture).size)


@pytest.mark.parametrize(
    'wrong',
    [dict(min_size=200, max_size=100), dict(empty=2), dict(val_images=0), dict(max_objects=0)],
)
def test_impossible_specification_is_refused(wrong):
    with pytest.raises(UserError, match='toy dataset: '):
        ToySpec(**wrong)


def test_dataset_class_draws_missing_files(tmp_path):
    from mmdet.registry import DATASETS

    dataset = DATASETS.build(
        dict(
            type='ToyDataset',
            spec=dict(train_images=2, val_images=2),
            data_root=str(tmp_path / 'toy'),
            ann_file='annotations/instances_val2017.json',
            data_prefix=dict(img='val2017/'),
            pipeline=[],
        )
    )
    assert dataset.metainfo['classes'] == CLASSES
    truth = json.loads((tmp_path / 'toy/annotations/instances_val2017.json').read_text())
    assert len(dataset) == len(truth['images']) == 2
