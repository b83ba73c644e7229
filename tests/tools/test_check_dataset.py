"""tools/check_dataset.py as a user meets it."""

import json
import shutil

import pytest
from PIL import Image


@pytest.fixture
def data(toy, tmp_path):
    """A copy of the toy dataset."""
    return shutil.copytree(toy, tmp_path / 'toy')


@pytest.fixture
def spoiled(data):
    """The same with a box outside its image and an empty file."""
    path = data / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['bbox'] = [500, 500, 10, 10]
    path.write_text(json.dumps(content))
    (data / 'val2017' / '000000000001.jpg').write_bytes(b'')
    return data


def test_clean_data_is_status_0(tool, data, tmp_path):
    result = tool('check_dataset', data, '--json', tmp_path / 'report.json')
    assert result.out.startswith('train: 8 images, ')
    assert '0 fatal, 0 error, ' in result.out
    assert json.loads((tmp_path / 'report.json').read_text())['counts']['error'] == 0


def test_errors_are_status_1_and_repaired_copies_are_clean(tool, spoiled, tmp_path):
    fixed = [tmp_path / 'train.json', tmp_path / 'val.json']
    picture = tmp_path / 'picture.png'
    flags = ('--fix', fixed[0], '--fix-val', fixed[1], '--picture', picture)
    result = tool('check_dataset', spoiled, *flags, status=1)
    assert '[box-outside]' in result.out
    assert '[image-unreadable]' in result.out
    assert f'written to {fixed[0]}:\nboxes dropped: outside: 1\n' in result.out
    assert f'written to {fixed[1]}:\nmissing or unreadable images dropped: 1\n' in result.out
    assert Image.open(picture).format == 'PNG'

    files = ['--train-ann', fixed[0], '--train-images', spoiled / 'train2017']
    files += ['--val-ann', fixed[1], '--val-images', spoiled / 'val2017']
    tool('check_dataset', *files)


def test_classes_and_scales_of_a_config(tool, root, data, tmp_path):
    config = tmp_path / 'own.py'
    base = 'configs/deformable_detr/mpvit_s_ddetr_50e.py'
    config.write_text(
        f'_base_ = {str(root / base)!r}\n'
        "train_dataloader = dict(dataset=dict(metainfo=dict(classes=('circle', 'elk'))))\n"
    )
    result = tool('check_dataset', data, '--quick', '--config', config, status=1)
    assert "there is no category 'elk'" in result.out
    assert 'short side 800, long side at most 1333' in result.out
    assert '[images-enlarged]' in result.out


def test_nothing_is_written_over(refused, data, tmp_path):
    annotations = data / 'annotations' / 'instances_train2017.json'
    before = annotations.read_bytes()
    taken = tmp_path / 'taken.png'
    taken.touch()
    for option in ('--fix', '--json', '--picture', '--fix-val'):
        target = taken if option == '--picture' else annotations
        result = refused('check_dataset', data, option, target, says=[target.name])
        assert result.out == ''  # before anything is read
    assert annotations.read_bytes() == before


def test_only_a_file_in_coco_format_is_repaired(refused, data, tmp_path):
    (data / 'annotations' / 'instances_train2017.json').write_text('[]')
    result = refused('check_dataset', data, '--fix', tmp_path / 'out.json')
    assert '[not-coco]' in result.out
    assert not (tmp_path / 'out.json').exists()


@pytest.mark.parametrize('suffix', ['jpg', 'webp', 'tiff', 'svg', 'pdf'])
def test_pictures_of_known_formats_can_be_drawn(data, tmp_path, suffix):
    from mpvit.datasets.check import Split, inspect_dataset
    from mpvit.visualization.dataset_picture import draw_picture

    split = Split(data / 'annotations' / 'instances_val2017.json', data / 'val2017')
    draw_picture(inspect_dataset(split, workers=1), tmp_path / f'picture.{suffix}')
    assert (tmp_path / f'picture.{suffix}').stat().st_size > 1000


@pytest.mark.parametrize('name', ['instances_test2017.json', 'image_info_test2017.json'])
def test_images_of_a_test_file_in_the_same_folder_are_no_orphans(tool, data, name):
    shared = data / 'images'
    (data / 'train2017').rename(shared)
    for image in (data / 'val2017').iterdir():
        image.rename(shared / f'val_{image.name}')
    (data / 'val2017').rmdir()
    val = data / 'annotations' / 'instances_val2017.json'
    content = json.loads(val.read_text())
    for image in content['images']:
        image['file_name'] = f'val_{image["file_name"]}'
    val.write_text(json.dumps(content))
    for stem in ('tested', 'forgotten'):
        Image.new('RGB', (64, 64)).save(shared / f'{stem}.png')
    image = dict(id=1, file_name='tested.png', width=64, height=64)
    test = dict(images=[image, dict(id=2)], annotations=[], categories=content['categories'])
    (data / 'annotations' / name).write_text(json.dumps(test))
    result = tool('check_dataset', data, status=None)
    assert 'forgotten.png' in result.out
    assert 'tested.png' not in result.out
