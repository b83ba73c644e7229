"""Text, JSON and picture of what was found, and the table in the docs."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from mpvit.datasets.check import CHECKS, SEVERITIES, Scales, json_report, text_report
from mpvit.visualization.dataset_picture import _worst, draw_picture


@pytest.fixture
def spoiled(spoilable):
    """Five boxes outside, a truncated and a missing image, and one that is turned."""
    for index in range(3, 8):
        spoilable.train['annotations'][index]['bbox'] = [70, 10, 20, 20]
    spoilable.image(3).write_bytes(spoilable.image(3).read_bytes()[:300])
    spoilable.image(1, 'val').unlink()
    spoilable.train['annotations'][30]['bbox'] = [40, 30, 40, 40]
    return spoilable


def test_text_groups_what_is_of_one_kind(spoiled):
    lines = text_report(spoiled.inspect()).splitlines()
    assert lines[0].startswith('train: 12 images, 36 annotations, 3 categories (')
    start = next(i for i, line in enumerate(lines) if '[box-outside]' in line)
    group = lines[start : start + 6]
    assert group[0].startswith('error: 5 x a box lies outside its image')
    for line, id_ in zip(group[1:4], (4, 5, 6), strict=True):
        assert f'train.json, image 101, annotation {id_}: bbox' in line
    assert group[4:] == ['    ... and 2 more', f'    fix: {CHECKS["box-outside"].fix}']
    severities = [line.split(':')[0] for line in lines if line.split(':')[0] in SEVERITIES]
    assert severities == sorted(severities, key=list(SEVERITIES).index)
    assert lines[-1] == '0 fatal, 7 error, 1 warning, 0 info'


def test_names_do_not_reach_the_terminal_as_commands(spoilable):
    name = 'a\x1b[31m\n0 fatal, 0 error\x9b2J\r.jpg'
    spoilable.train['images'][0]['file_name'] = name
    lines = text_report(spoilable.inspect()).split('\n')
    assert any('a?[31m?0 fatal, 0 error?2J?.jpg' in line for line in lines)
    assert all(line.isprintable() for line in lines)
    assert sum(line.startswith('0 fatal') for line in lines) == 1
    problems = json_report(spoilable.inspect())['problems']
    assert any(one['file'].endswith(name) for one in problems)


def test_json_holds_all(spoiled):
    found = spoiled.inspect()
    report = json.loads(json.dumps(json_report(found)))
    assert report['counts'] == dict(fatal=0, error=7, warning=1, info=0)
    assert [split['images'] for split in report['splits']] == [12, 4]
    outside = [one for one in report['problems'] if one['code'] == 'box-outside']
    assert [one['annotation_id'] for one in outside] == [4, 5, 6, 7, 8]
    assert outside[0] == dict(
        severity='error',
        code='box-outside',
        message='bbox [70, 10, 20, 20] in an image of 64x48',
        file=str(spoiled.root / 'train.json'),
        image_id=101,
        annotation_id=4,
        fix=CHECKS['box-outside'].fix,
    )
    (missing,) = [one for one in report['problems'] if one['code'] == 'image-missing']
    assert (missing['image_id'], missing['annotation_id']) == (101, None)
    assert missing['file'] == str(spoiled.image(1, 'val'))


def test_samples_are_the_worst_and_show_every_kind(spoiled):
    samples = _worst(spoiled.inspect())
    shown = {
        (Path(sample.table.file).stem, sample.table.images[sample.row]['id']) for sample in samples
    }
    assert shown == {('train', 101), ('train', 102), ('train', 103), ('train', 110), ('val', 101)}
    kinds = {one.code for sample in samples for one in sample.problems}
    assert kinds == {'box-outside', 'box-partly-outside', 'image-unreadable', 'image-missing'}


@pytest.mark.parametrize('scales', [None, Scales(96, 192, 300)])
def test_picture_of_spoiled_data(spoiled, tmp_path, scales):
    draw_picture(spoiled.inspect(scales=scales), tmp_path / 'picture.png')
    picture = Image.open(tmp_path / 'picture.png').convert('RGB')
    assert picture.width > 1500
    assert picture.height > 1000
    assert len(picture.getcolors(2**24)) > 1000


def test_picture_of_clean_data_and_of_none(spoilable, tmp_path):
    draw_picture(spoilable.inspect(), tmp_path / 'clean.png')
    spoilable.train = spoilable.val = None
    draw_picture(spoilable.inspect(), tmp_path / 'none.png')
    heights = [Image.open(tmp_path / f'{name}.png').height for name in ('clean', 'none')]
    assert heights == [552, 552]  # no samples


def test_table_in_the_docs_is_that_of_the_code(root):
    text = (root / 'docs' / 'check_dataset.md').read_text()
    rows = re.findall(r'^\| `([a-z0-9-]+)` \| (\w+) \| (.*?) \| (.*?) \|$', text, re.M)
    expected = [
        (code, check.severity, check.meaning, 'yes' if check.repaired else '')
        for code, check in CHECKS.items()
    ]
    assert [tuple(cell.strip() for cell in row) for row in rows] == expected
    for severity, meaning in SEVERITIES.items():
        assert f'| {severity} | {meaning} |' in text
