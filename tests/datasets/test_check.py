"""Every check finds what it is for, and nothing else."""

import json
import re
import time

import numpy as np
import pytest
from spoiling import BOXES, CASES, CLASSES

from benchmarks._synthetic import coco_truth
from mpvit.datasets.check import (
    CHECKS,
    SEVERITIES,
    Scales,
    Split,
    check_dataset,
    refuse_fatal,
    settings_of,
)
from mpvit.datasets.check.repair import repair
from mpvit.errors import UserError


def codes(problems):
    return {found.code for found in problems}


@pytest.mark.parametrize('name', CASES)
def test_exactly_what_was_spoiled_is_found(spoilable, name):
    case = CASES[name]
    case.spoil(spoilable)
    problems = spoilable.check(**case.arguments)
    assert codes(problems) == set(case.found.split())
    assert all(found.message and found.fix and found.file for found in problems)
    quick = spoilable.check(quick=True, **case.arguments)  # so few images are all looked at
    assert codes(quick) == codes(problems) - {'image-orphan', 'folder-unreadable'}


def test_every_check_is_made_to_happen():
    made = {code for case in CASES.values() for code in case.found.split()}
    assert made | {'val-missing'} == set(CHECKS)
    assert {check.severity for check in CHECKS.values()} == set(SEVERITIES)


def test_a_folder_needs_validation_data(spoilable):
    train = Split(spoilable.root / 'train.json', spoilable.root / 'train')
    assert codes(check_dataset(train, root=spoilable.root)) == {'val-missing'}
    assert not check_dataset(train)


TOGETHER = (  # they do not hide each other
    'box: over the left edge',
    'two_annotations_with_one_id',
    'unknown_category',
    'the_same_box_twice',
    'no_area',
    'image_without_size',
    'a_truncated_image',
    'another_size',
    'transparency',
    'the_same_content_in_both_splits',
    'a_file_that_nobody_lists',
)


def test_the_number_of_threads_changes_nothing(spoilable):
    for name in TOGETHER:
        CASES[name].spoil(spoilable)
    alone = spoilable.check()
    assert {code for name in TOGETHER for code in CASES[name].found.split()} <= codes(alone)
    assert spoilable.check(workers=3) == alone


@pytest.mark.parametrize('repaired', [False, True])
def test_usable_boxes_are_those_that_a_training_gets(spoilable, repaired, build_dataset):
    """What is said to be ignored is left out by the dataset class, and nothing else."""
    annotations = spoilable.train['annotations']
    for index, name in enumerate(('zero width', 'right of the image', 'over the left edge')):
        annotations[index]['bbox'] = BOXES[name][0]
    annotations[3]['category_id'] = 9
    annotations[4]['image_id'] = 9
    annotations[5]['iscrowd'] = 1
    del annotations[6]['area']
    if repaired:
        repaired_codes(spoilable)
    found = spoilable.inspect()
    root = spoilable.root
    dataset = build_dataset(root / 'train.json', root / 'train', CLASSES)
    records = [dataset.get_data_info(i)['instances'] for i in range(len(dataset))]
    trained_on = [one for record in records for one in record if not one['ignore_flag']]
    assert found.used['train'] == (len(dataset), len(trained_on)) == (12, 31)


def test_fatal_problems_are_refused_with_a_line_for_each_kind(spoilable):
    spoilable.train['annotations'][3]['bbox'] = [1, 2, 3]
    spoilable.train['annotations'][4]['bbox'] = [1, 2, 3]
    spoilable.val['categories'][0]['name'] = 'line\nbreak'
    spoilable.image(2).unlink()
    problems = spoilable.check()
    with pytest.raises(UserError) as refused:
        refuse_fatal(problems)
    lines = str(refused.value).split('\n')
    assert len(lines) == 2
    assert 'train.json: bbox [1, 2, 3] in an image of 64x48 (and 1 more like it); ' in lines[0]
    assert lines[1].endswith('[categories-differ]')
    refuse_fatal([found for found in problems if found.severity != 'fatal'])


@pytest.mark.parametrize(
    ('rename', 'folder', 'hint'),
    [
        ('train/{}', 'train', 'file_name must not name a folder'),
        ('folder\\{}', 'train', 'write the file names with / instead of'),
        ('train/{}', 'empty', 'it is there from .*data on'),
    ],
)
def test_hint_where_no_image_is_found(spoilable, rename, folder, hint):
    for image in spoilable.train['images']:
        image['file_name'] = rename.format(image['file_name'])
    spoilable.save()
    (spoilable.root / folder).mkdir(exist_ok=True)
    split = Split(spoilable.root / 'train.json', spoilable.root / folder)
    (found,) = [f for f in check_dataset(split, quick=True) if f.code == 'no-image-found']
    assert re.search(hint, found.message)


def test_settings_from_the_config_of_a_dataset():
    resize = dict(type='RandomChoiceResize', scales=[(480, 1333), (800, 1333)])
    uncropped = dict(type='RandomChoiceResize', scales=[400, 600])
    load = dict(type='LoadImageFromFile')
    dataset = dict(
        metainfo=dict(classes=['a']),
        pipeline=[load, dict(type='RandomChoice', transforms=[[uncropped], [resize]])],
    )
    assert settings_of(dataset) == dict(
        classes=('a',),
        filter_cfg=None,
        scales=Scales(480, 800, 1333, unlimited=600, tightest=1333),
        exif_turns=True,
    )
    load['color_type'] = 'color_ignore_orientation'
    dataset['pipeline'] = [load]
    assert settings_of(dataset)['scales'] is None
    assert not settings_of(dataset)['exif_turns']


def test_annotations_take_seconds(tmp_path):
    """COCO's 118,000 images would take 12 times as long; none of these is there."""
    (tmp_path / 'truth.json').write_text(json.dumps(coco_truth(10_000)))
    start = time.process_time()
    found = codes(check_dataset(Split(tmp_path / 'truth.json', tmp_path), quick=True))
    assert time.process_time() - start < 8
    assert {'no-image-found', 'crowd', 'class-without-boxes'} <= found


def repaired_codes(data):
    """Save, repair both files, and check the copies."""
    found = data.inspect()
    changed = []
    for role in ('train', 'val'):
        content, changes = repair(found.table(role), found.facts)
        setattr(data, role, content)
        changed += changes
    return codes(data.check()), changed


FIXABLE = [
    name
    for name, case in CASES.items()
    if any(CHECKS[code].repaired for code in case.found.split()) and not case.arguments
]


@pytest.mark.parametrize('name', [n for n in FIXABLE if n != 'empty_list_of_images'])
def test_a_repaired_copy_has_nothing_left_to_repair(spoilable, name):
    CASES[name].spoil(spoilable)
    found, changed = repaired_codes(spoilable)
    assert not [code for code in found if CHECKS[code].repaired]
    assert changed or name == 'byte_order_mark'


@pytest.mark.parametrize('seed', range(20))
def test_repair_of_random_damage(spoilable, seed):
    """Many faults at once, at random places."""
    rng = np.random.default_rng(seed)
    values = [None, 'x', -7, 0, 5, 63.5, 100, 1e9, float('nan'), float('inf'), [1], {}]
    for content in (spoilable.train, spoilable.val):
        for kind, times in (('annotations', 10), ('images', 3)):
            for _ in range(times):
                entry = content[kind][rng.integers(len(content[kind]))]
                key = list(entry)[rng.integers(len(entry))]
                entry[key] = values[rng.integers(len(values))]
        for _ in range(10):
            entry = content['annotations'][rng.integers(len(content['annotations']))]
            entry['bbox'] = rng.integers(-20, 80, 4).tolist()
            entry['image_id'] = 100 + int(rng.integers(6))
    for index in (0, 3, 7):
        spoilable.image(index).write_bytes(b'')
    found, _ = repaired_codes(spoilable)
    assert not [code for code in found if CHECKS[code].repaired]


def test_repair_clips_and_keeps_the_rest(spoilable):
    before = json.dumps(spoilable.train)
    entry = spoilable.train['annotations'][4]
    entry.update(bbox=[-5, 2, 20, 10], area=200, note='kept')
    spoilable.train['info'] = dict(year=2026)
    found = spoilable.inspect()
    content, changes = repair(found.table('train'), found.facts)
    assert changes == ['boxes clipped to their image: 1']
    expected = json.loads(before)
    expected['info'] = dict(year=2026)
    expected['annotations'][4].update(bbox=[0, 2, 15, 10], area=150, note='kept')
    assert content == expected
    assert entry['bbox'] == [-5, 2, 20, 10]  # the original is as it was


def test_repair_of_ids_as_text_loses_nothing(spoilable):
    before = json.dumps(spoilable.train)
    kinds = dict(images=['id'], annotations=['id', 'image_id', 'category_id'], categories=['id'])
    for kind, keys in kinds.items():
        for entry in spoilable.train[kind][::2]:
            entry.update({key: str(entry[key]) for key in keys})
    spoilable.train['images'][1]['id'] = 101.0
    spoilable.train['annotations'][3]['ignore'] = 'False'
    content, changes = repair(spoilable.inspect().table('train'), {})
    expected = json.loads(before)
    expected['annotations'][3]['ignore'] = 0
    assert content == expected
    assert changes == ['ids written as integers: 63', 'ignore written as 0 or 1 instead of text: 1']


def test_repair_of_images_with_one_id(spoilable):
    """Boxes of two files cannot be told apart; entries of one file are merged."""
    images = spoilable.train['images']
    images[1]['id'] = 100
    images[3]['file_name'] = './02.png'
    found = spoilable.inspect()
    content, _ = repair(found.table('train'), found.facts)
    assert [image['id'] for image in content['images']] == [102, *range(104, 112)]
    of_merged = [a for a in content['annotations'] if a['image_id'] == 102]
    assert [a['id'] for a in of_merged] == [7, 8, 9, 10, 11, 12]


def test_repair_of_nothing_but_missing_images_is_refused(spoilable):
    spoilable.save()
    for index in range(12):
        spoilable.image(index).unlink()
    found = spoilable.inspect()
    with pytest.raises(UserError, match='would drop all images'):
        repair(found.table('train'), found.facts)
