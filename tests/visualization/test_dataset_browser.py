"""Contact sheets: boxes and pixels against the files, drawn before and after the pipeline."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mpvit.datasets.data_files import DataFiles
from mpvit.errors import UserError
from mpvit.visualization import dataset_browser as browse
from mpvit.visualization.dataset_browser import browse_dataset


@pytest.fixture
def look(tiny, tmp_path, monkeypatch):
    """The rows of pictures that would be drawn, image by image."""

    def rows(**arguments):
        options = [*tiny[1], *arguments.pop('options', [])]
        if 'data' in arguments:
            options = options[6:]
        drawn = []
        monkeypatch.setattr(browse, 'draw_sheets', lambda rows, *rest: drawn.extend(rows))
        browse_dataset(tiny[0], tmp_path / 'sheets', cfg_options=options, **arguments)
        return drawn

    return rows


def annotations(folder, split):
    """Image and boxes ``(x1, y1, x2, y2)`` by file name, as they are in the file."""
    content = json.loads((folder / f'annotations/instances_{split}2017.json').read_text())
    found = {}
    for image in content['images']:
        boxes = [a['bbox'] for a in content['annotations'] if a['image_id'] == image['id']]
        corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
        pixels = Image.open(folder / f'{split}2017' / image['file_name']).convert('RGB')
        found[image['file_name']] = pixels, np.reshape(corners, (-1, 4))
    return found


def corners(panel):
    return np.reshape([box.corners for box in panel.boxes], (-1, 4))


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('to_rgb', [True, False])
def test_pictures_and_boxes_are_those_of_the_files(look, toy, split, to_rgb):
    files = annotations(toy, split)
    options = [f'model.data_preprocessor.bgr_to_rgb={to_rgb}']
    rows = look(split=split, count=20, options=options)
    assert len(rows) == len(files) == dict(train=8, val=6)[split]
    mirrored = 0
    for raw, *fed in rows:
        pixels, boxes = files[raw.title.split(',')[0]]
        assert np.array_equal(raw.pixels, np.asarray(pixels))
        np.testing.assert_allclose(corners(raw), boxes)
        assert len(fed) == dict(train=3, val=1)[split]
        for panel in fed:
            width, height = panel.size
            assert panel.pixels.shape == (128, 128, 3)
            assert max(panel.size) == 128
            expected = pixels.resize(panel.size, Image.Resampling.BILINEAR)
            wanted = boxes * ([width / pixels.width, height / pixels.height] * 2)
            if 'mirrored' in panel.title:
                mirrored += 1
                expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                wanted = wanted[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (width, 0, width, 0)
            difference = np.abs(panel.pixels[:height, :width] - np.asarray(expected, float))
            assert difference.max() <= 2
            # what rounding the size of the image does to boxes
            np.testing.assert_allclose(corners(panel), wanted, atol=0.6)
    assert (mirrored > 3) == (split == 'train')
    assert any(panel.title.endswith('no objects') for panel, *_ in rows)


def test_same_seed_same_pictures(look):
    def pictures(**arguments):
        return {
            raw.title: [panel.pixels.tobytes() for panel in fed]
            for raw, *fed in look(draws=3, **arguments)
        }

    first = pictures(count=4, seed=1)
    np.random.seed(123)
    assert pictures(count=4, seed=1) == first
    others = pictures(count=4, seed=2)
    assert others.keys() != first.keys()
    every = pictures(count=8, seed=1)  # an image is augmented alike, whatever is beside it
    assert {title: every[title] for title in first} == first
    assert any(len(set(draws)) > 1 for draws in every.values())


@pytest.fixture
def spoiled(toy, tmp_path):
    """A copy of the dataset whose first training image has one box of every kind."""
    folder = tmp_path / 'data'
    shutil.copytree(toy, folder)
    path = folder / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_text())
    image = content['images'][0]
    width, height = image['width'], image['height']
    kinds = dict(
        cut=[width - 20, 5, 50, 20],
        empty=[30, 30, 0, 0],
        outside=[2 * width, 10, 20, 20],
        crowd=[1, 1, 30, 30],
        fine=[2, 2, 40, 40],
    )
    content['annotations'] = [
        dict(id=i, image_id=image['id'], category_id=1, bbox=box, area=1, iscrowd=kind == 'crowd')
        for i, (kind, box) in enumerate(kinds.items(), start=1)
    ]
    path.write_text(json.dumps(content))
    return folder, width, height


def test_boxes_that_nothing_is_trained_on_are_told(look, spoiled):
    folder, width, height = spoiled
    rows = look(data=DataFiles(str(folder)), count=1, classes=['circle'])
    ((raw, *fed),) = rows
    notes = sorted((box.note, box.corners) for box in raw.boxes)
    assert notes == [
        ('', (2, 2, 42, 42)),
        ('', (width - 20, 5, width, 25)),  # what the cut one becomes
        ('crowd', (1, 1, 31, 31)),
        ('cut', (width - 20, 5, width + 30, 25)),
        ('left out', (30, 30, 30, 30)),
        ('left out', (2 * width, 10, 2 * width + 20, 30)),
    ]
    assert raw.title.endswith('2 objects, 1 crowd, 1 cut, 2 left out')
    for panel in fed:
        assert sorted(box.note for box in panel.boxes) == ['', '', 'crowd']


@pytest.mark.parametrize('below', ['', 'sheets'])
def test_sheets_do_not_become_images_of_the_dataset(spoiled, tiny, below):
    images = spoiled[0] / 'train2017'
    before = sorted(images.iterdir())
    with pytest.raises(UserError, match='--out .*among the images'):
        browse_dataset(tiny[0], images / below, data=DataFiles(str(spoiled[0])))
    assert sorted(images.iterdir()) == before


def test_a_dataset_without_images_is_named(look):
    with pytest.raises(UserError, match=r'train2017.json: filter_cfg leaves no image'):
        look(options=['train_dataloader.dataset.filter_cfg.min_size=10000'])


def test_images_are_mixed_as_the_config_says(tiny, toy, tmp_path, monkeypatch):
    config = tmp_path / 'mixed.py'
    config.write_text(f"""
_base_ = '{tiny[0]}'
inner = dict(
    type='ToyDataset',
    data_root='{toy}',
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
    filter_cfg=dict(filter_empty_gt=False, min_size=0),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)],
    spec=_base_.spec,
)
mosaic = [dict(type='Mosaic', img_scale=(128, 128), pad_val=0.0), dict(type='PackDetInputs')]
train_dataloader = dict(
    dataset=dict(_delete_=True, type='MultiImageMixDataset', dataset=inner, pipeline=mosaic)
)
""")
    drawn = []
    monkeypatch.setattr(browse, 'draw_sheets', lambda rows, *rest: drawn.extend(rows))
    browse_dataset(config, tmp_path / 'sheets', count=8, draws=1)
    assert {fed.size for _, fed in drawn} == {(256, 256)}  # four images
    assert sum(len(fed.boxes) for _, fed in drawn) > 1.5 * sum(len(raw.boxes) for raw, _ in drawn)


@pytest.mark.parametrize(
    ('wanted', 'message'),
    [('cirle', "--classes: .*'cirle'; did you mean circle"), ('dog', 'it has circle, square')],
)
def test_unknown_classes(look, wanted, message):
    with pytest.raises(UserError, match=message):
        look(classes=['star', wanted])


def test_only_images_with_a_class(look, toy):
    rows = look(classes=['star'], count=8)
    content = json.loads((toy / 'annotations/instances_train2017.json').read_text())
    star = next(c['id'] for c in content['categories'] if c['name'] == 'star')
    with_stars = {a['image_id'] for a in content['annotations'] if a['category_id'] == star}
    assert 0 < len(rows) == len(with_stars) < 8


def test_sheets_are_never_written_over(tiny, tmp_path):
    (tmp_path / 'train_02.png').write_text('mine')
    with pytest.raises(UserError, match=r'train_02.png exists already'):
        browse_dataset(tiny[0], tmp_path, cfg_options=tiny[1], count=5)
    assert [path.name for path in tmp_path.iterdir()] == ['train_02.png']
    written = browse_dataset(tiny[0], tmp_path, cfg_options=tiny[1], count=3, draws=1)
    assert written == [tmp_path / 'train_01.png']
    width, height = Image.open(written[0]).size
    assert width > 600
    assert height > 900
