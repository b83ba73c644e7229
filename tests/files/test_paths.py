"""The paths that a user names."""

import os
from pathlib import Path

import pytest

from mpvit.errors import UserError
from mpvit.files import paths


def test_every_type_of_path_knows_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'a.pth').touch()
    for check in (paths.existing_file, paths.existing_checkpoint, paths.expanded):
        assert check('~/a.pth') == str(tmp_path / 'a.pth')
    assert paths.existing_folder(Path('~')) == tmp_path
    for check in (paths.new_file, paths.new_folder, paths.new_picture, paths.work_dir):
        assert check('~/new.png') == str(tmp_path / 'new.png')
    assert paths.pickle_file('~/a.pkl') == str(tmp_path / 'a.pkl')
    assert paths.existing_checkpoint('https://a.org/~b.pth') == 'https://a.org/~b.pth'


@pytest.mark.parametrize(
    'check',
    [
        paths.existing_file,
        paths.existing_folder,
        paths.existing_run,
        paths.existing_checkpoint,
        paths.work_dir,
        paths.new_file,
        paths.new_folder,
        paths.new_picture,
        paths.pickle_file,
    ],
)
def test_an_empty_path_is_not_the_current_folder(check):
    with pytest.raises(UserError, match='empty'):
        check('')


def test_the_newest_config_of_a_run(tmp_path):
    assert paths.newest_config(tmp_path) is None
    for age, name in enumerate(('new.py', 'old.py', 'new_test.py')):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert paths.newest_config(tmp_path) == tmp_path / 'new.py'
    assert paths.newest_config(tmp_path, test=True) == tmp_path / 'new_test.py'


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('s3://bucket/a.jpg', True),
        ('cluster:s3://bucket/a.jpg', True),
        ('http://a.org', True),
        ('train2017/x://1.jpg', False),
        ('/data/x://1.jpg', False),
        ('./x://1.jpg', False),
        ('://1.jpg', False),
        ('a.jpg', False),
    ],
)
def test_an_address_begins_with_a_scheme(path, expected):
    assert paths.is_address(path) is expected
