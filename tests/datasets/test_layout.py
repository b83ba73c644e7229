"""Layouts that are recognised, and what is said where one is not."""

import json
import shutil
import time

import pytest

from mpvit.datasets.annotations import Split, read_annotations
from mpvit.datasets.check.classes import config_problems
from mpvit.datasets.layout import files_to_check, find_test_data, find_training_data, split_of
from mpvit.errors import UserError
from mpvit.evaluation.result_files import read_results


def content(*names, classes=('cat', 'dog'), used=(1, 2)):
    return dict(
        images=[dict(id=i, file_name=name, width=9, height=9) for i, name in enumerate(names)],
        annotations=[
            dict(id=i, image_id=0, category_id=c, bbox=[1, 1, 2, 2], area=4)
            for i, c in enumerate(used)
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(classes, start=1)],
    )


def make(root, tree):
    """Write files: annotations from dicts, images from names."""
    for name, value in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value) if isinstance(value, dict) else value)
    return root


IMAGE = 'not looked into'


def files(*names):
    """Annotation files with the image 1.jpg, and images."""
    return {name: content('1.jpg') if name.endswith('.json') else IMAGE for name in names}


COCO = 'annotations/instances_{}2017.json', 'annotations/person_keypoints_{}2017.json'
USUAL = {  # each with the folders of training and validation images
    'coco_2017': (
        files(*(name.format(split) for name in COCO for split in ('train', 'val')))
        | files('train2017/1.jpg', 'val2017/1.jpg', 'test2017/2.jpg')
        | {'annotations/image_info_test2017.json': content('2.jpg', used=())},
        ('train2017', 'val2017'),
    ),
    'roboflow': (
        files('train/_annotations.coco.json', 'train/1.jpg')
        | files('valid/_annotations.coco.json', 'valid/1.jpg'),
        ('train', 'valid'),
    ),
    'images_of_a_split': (
        files('annotations/train.json', 'annotations/val.json', 'images/train/1.jpg')
        | files('images/val/1.jpg'),
        ('images/train', 'images/val'),
    ),
    'images_of_all': (
        files('annotations/instances_train.json', 'annotations/instances_val.json', 'images/1.jpg'),
        ('images', 'images'),
    ),
    'images_below_the_split': (
        files('train/annotations.json', 'train/images/1.jpg')
        | files('validation/annotations.json', 'validation/images/1.jpg'),
        ('train/images', 'validation/images'),
    ),
    'folder_in_the_name': (
        files('pictures/day_1/1.jpg', 'pictures/day_2/1.jpg')
        | {f'{s}.json': content(f'pictures/day_{i}/1.jpg') for i, s in ((1, 'train'), (2, 'val'))},
        ('.', '.'),
    ),
}
ROBOFLOW, BY_SPLIT = USUAL['roboflow'][0], USUAL['images_of_a_split'][0]


@pytest.mark.parametrize('name', USUAL)
def test_usual_layouts(name, tmp_path):
    tree, folders = USUAL[name]
    layout = find_training_data(make(tmp_path, tree))
    assert set(layout.splits) == {'train', 'val'}
    for split, folder in zip(('train', 'val'), folders, strict=True):
        found = layout.splits[split]
        assert found.images == tmp_path / folder
        file_name = json.loads(found.ann_file.read_text())['images'][0]['file_name']
        assert (found.images / file_name).is_file()
        assert split_of(found.ann_file.name) or split_of(found.ann_file.parent.name)
    assert layout.classes == ('cat', 'dog')
    assert '2 classes: cat, dog' in layout.summary()


@pytest.mark.parametrize(
    ('name', 'split'),
    [
        ('instances_train2017.json', 'train'),
        ('valid', 'val'),
        ('Validation', 'val'),
        ('minival2014.json', 'val'),
        ('test-dev2017', 'test'),
        ('trainval.json', None),
        ('train_and_val', None),
        ('restrained', None),
        ('annotations', None),
    ],
)
def test_names_of_splits(name, split):
    assert split_of(name) == split


def test_a_test_split_is_taken_if_it_has_annotations(tmp_path):
    test = {'test/_annotations.coco.json': content('3.jpg'), 'test/3.jpg': IMAGE}
    make(tmp_path, ROBOFLOW | test)
    assert find_training_data(tmp_path).splits['test'].images == tmp_path / 'test'
    assert find_test_data(tmp_path).splits['test'].images == tmp_path / 'test'
    (tmp_path / 'test/_annotations.coco.json').write_text(json.dumps(content('3.jpg', used=())))
    assert 'test' not in find_training_data(tmp_path).splits
    assert find_test_data(tmp_path).splits['test'].images == tmp_path / 'valid'


def test_named_files_need_no_folder(tmp_path):
    root = make(tmp_path, USUAL['images_of_all'][0])
    shutil.move(root / 'annotations' / 'instances_val.json', root / 'annotations' / 'held_out.json')
    named = dict(
        train_ann=str(root / 'annotations/instances_train.json'),
        val_ann=str(root / 'annotations/held_out.json'),
    )
    layout = find_training_data(None, **named)
    assert layout.root is None
    assert layout.splits['val'].images == root / 'images'
    assert find_training_data(root, val_ann=named['val_ann']).image_counts['val'] == 1


def test_a_named_image_folder_is_looked_into(tmp_path):
    root = make(tmp_path / 'data', ROBOFLOW)
    elsewhere = tmp_path / 'elsewhere'
    shutil.move(root / 'train' / '1.jpg', make(elsewhere, {'x': IMAGE}) / '1.jpg')
    with pytest.raises(UserError, match=r"'1.jpg' is in none of .*--train-images DIR"):
        find_training_data(root)
    layout = find_training_data(root, train_images=str(elsewhere))
    assert layout.splits['train'].images == elsewhere
    with pytest.raises(UserError, match=r'--train-images DIR .*: 1.jpg, which .* is not there'):
        find_training_data(root, train_images=str(root))


def roboflow(train=ROBOFLOW['train/_annotations.coco.json'], val=None):
    return ROBOFLOW | {
        'train/_annotations.coco.json': train,
        'valid/_annotations.coco.json': val or train,
    }


PROJECT = [dict(id=0, name='pets', supercategory='none')] + [
    dict(id=i, name=name, supercategory='pets') for i, name in ((1, 'cat'), (2, 'dog'))
]


def with_categories(tmp_path, categories, **kwargs):
    return make(tmp_path, roboflow(content('1.jpg', **kwargs) | dict(categories=categories)))


def test_the_name_of_a_roboflow_project_is_no_class(tmp_path):
    layout = find_training_data(with_categories(tmp_path, PROJECT))
    assert (layout.classes, layout.left_out) == (('cat', 'dog'), 'pets')
    assert "'pets', is the name of the project" in layout.summary()


@pytest.mark.parametrize(
    'change',
    [
        dict(used=(0, 1)),  # a box has it
        dict(categories=[dict(PROJECT[0], id=5), *PROJECT[1:]]),  # not first
        dict(categories=[PROJECT[0], PROJECT[1], dict(PROJECT[2], supercategory='other')]),
    ],
)
def test_other_classes_without_boxes_stay(tmp_path, change):
    categories = change.pop('categories', PROJECT)
    layout = find_training_data(with_categories(tmp_path, categories, **change))
    assert (layout.classes, layout.left_out) == (('pets', 'cat', 'dog'), None)


@pytest.mark.parametrize(
    ('tree', 'message'),
    [
        ({}, 'train: .*--train-ann'),
        (files('boxes.json'), r'boxes.json.*--train-ann'),
        (files('train/1.jpg', 'train/_annotations.coco.json'), '--val-ann'),
        (roboflow(train=IMAGE), 'JSON'),
        (files('a/train.json', 'b/train.json'), 'a/train.json, .*b/train.json'),
        (BY_SPLIT | files('train/1.jpg'), 'train.json .*images/train, .*train'),
        (roboflow(val=content('1.jpg', classes=('cat', 'cow'))), "'dog'.*'cow'"),
        (roboflow(val=content('1.jpg', classes=('dog', 'cat'))), "order.*'cat'.*'dog'"),
        (roboflow(train=content('1.jpg', classes=('cat', 'cat'))), r"'cat' \(ids 1, 2\)"),
        (roboflow(train=content()), 'lists no images'),
        (roboflow(train=dict(images=[])), 'not in COCO format'),
        (roboflow(train='[1]'), 'not in COCO format'),
        (roboflow(train=content('1.jpg', classes=())), 'categories'),
        (files('data.yaml', 'train/labels/1.txt'), 'YOLO .*mpvit convert_dataset'),
        (files('Annotations/1.xml', 'JPEGImages/1.jpg'), 'Pascal VOC .*mpvit convert_dataset'),
    ],
)
def test_what_is_said_of_folders_that_do_not_do(tmp_path, tree, message):
    with pytest.raises(UserError, match=message) as caught:
        find_training_data(make(tmp_path, tree))
    assert str(tmp_path) in str(caught.value)


def test_one_file_under_two_spellings(tmp_path, monkeypatch):
    root = make(tmp_path / 'site', BY_SPLIT)
    monkeypatch.chdir(tmp_path)
    layout = find_training_data(root, val_ann='site/annotations/val.json')
    assert layout.splits['val'].images == root / 'images' / 'val'


def test_a_test_split_that_is_incomplete(tmp_path):
    root = make(tmp_path, ROBOFLOW | {'test/_annotations.coco.json': content('9.jpg')})
    missing = "'9.jpg' is in none of .* --val-images DIR of mpvit test"
    with pytest.raises(UserError, match=missing):
        find_test_data(root)
    layout = find_training_data(root)  # which does not need it
    assert set(layout.splits) == {'train', 'val'}
    assert 'the test split is left out (images of' in layout.summary()


def test_one_named_file_asks_for_the_other(tmp_path):
    root = make(tmp_path, ROBOFLOW)
    with pytest.raises(UserError, match='--val-ann'):
        find_training_data(None, train_ann=str(root / 'train' / '_annotations.coco.json'))


@pytest.mark.parametrize('name', [None, 'x' * 300, 7], ids=['null', 'too long', 'a number'])
def test_broken_file_names_are_told_and_left_to_the_check(toy, tmp_path, name):
    data = shutil.copytree(toy, tmp_path / 'data')
    path = data / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_text())
    for image in content['images']:
        image['file_name'] = name
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='instances_train2017.json'):
        find_training_data(data)
    assert files_to_check(data)[0][0] == Split(path, data / 'train2017')


def test_many_classes_take_no_longer_each(tmp_path):
    """None of the searches among names is repeated for each name: of 30,000 that takes minutes."""
    names = [f'class {number:05d}' for number in range(30_000)]
    notes = content('1.jpg', classes=names)
    make(tmp_path, {'train.json': notes, 'val.json': notes, 'train/1.jpg': IMAGE})
    make(tmp_path, {'val/1.jpg': IMAGE, 'found.json.txt': '[]'})
    before = time.process_time()
    assert find_training_data(tmp_path).classes == tuple(names)
    table = read_annotations(tmp_path / 'val.json')
    assert list(config_problems(table, names)) == []
    assert table.used(names)[1].sum() == 2
    found = read_results(tmp_path / 'val.json', tmp_path / 'found.json.txt', '', names)
    assert found.names == tuple(names)
    assert time.process_time() - before < 5
