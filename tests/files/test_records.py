"""Records of strangers: what is of another kind is named, and what nobody reads may be anything."""

import json
from pathlib import Path

import pytest

from mpvit.errors import UserError
from mpvit.files.records import check_form, is_kind, read_record

FORM = dict(checkpoint=str, data=dict(classes=[str], turned=bool), epoch=int, loss=float)
GOOD = dict(checkpoint='a.pth', data=dict(classes=['cat', 'dog'], turned=False), epoch=3, loss=2)


def test_entries_may_be_missing_null_or_unknown(tmp_path):
    for content in (GOOD, {}, dict(checkpoint=None, data={}), GOOD | dict(more=[1])):
        (tmp_path / 'a.json').write_text(json.dumps(content))
        assert read_record(tmp_path / 'a.json', FORM) == content
    assert read_record(tmp_path / 'none.json', FORM) == {}


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ('{"checkpoint": 5}', 'checkpoint is a whole number, not a string'),
        ('{"data": {"classes": ["cat", null]}}', r'data\.classes\[1\] is null, not a string'),
        ('{"data": {"classes": "cat"}}', r'data\.classes is a string, not a list'),
        ('{"data": {"turned": 1}}', r'data\.turned is a whole number, not true or false'),
        ('{"epoch": true}', 'epoch is true or false, not a whole number'),
        ('{"loss": 1%s}' % ('0' * 400), 'loss is too large'),
        ('[1]', 'the content is a list, not a dict'),
        ('{"a": ', 'Expecting value'),
        ('[' * 100_000, 'recursion'),
    ],
)
def test_the_file_and_the_entry_of_another_kind_are_named(tmp_path, content, said):
    path = tmp_path / 'a.json'
    path.write_text(content)
    with pytest.raises(UserError, match=rf'{path} (is no JSON|cannot be used): .*{said}'):
        read_record(path, FORM)


def test_forms_may_contain_themselves():
    form = dict(ann_file=str)
    form['dataset'] = form
    check_form(dict(dataset=dict(dataset=dict(ann_file='a'))), form)
    with pytest.raises(ValueError, match=r'dataset\.dataset\.ann_file is a list'):
        check_form(dict(dataset=dict(dataset=dict(ann_file=[]))), form)


def test_numbers():
    numbers = [0, -5, 2**63 - 1, 2**63, True, 1.5, float('inf'), '1', None]
    assert [is_kind(n, int) for n in numbers] == [True] * 3 + [False] * 6
    assert [is_kind(n, float) for n in numbers] == [True] * 3 + [False] * 2 + [True] * 2 + [
        False
    ] * 2
    assert not is_kind(Path('a'), str)
