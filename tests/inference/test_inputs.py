"""What inputs stand for."""

import os
import re
import tempfile
from pathlib import Path

import pytest

from mpvit.errors import UserError
from mpvit.inference.inputs import find


@pytest.fixture
def folder(tmp_path):
    """A folder with images, a video and other files."""
    for name in (
        'b.jpg',
        'a.PNG',
        'clip.mp4',
        'notes.txt',
        'deep/c.tiff',
        '.hidden/d.jpg',
        '.e.jpg',
    ):
        path = tmp_path / 'in' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / 'in'


def names(*inputs):
    return [place.name for place in find(inputs)]


def test_a_folder_is_searched_with_its_folders_but_not_the_hidden_ones(folder):
    assert names(folder) == ['a.PNG', 'b.jpg', 'clip.mp4', 'deep/c.tiff']
    assert [p.path for p in find([folder])][3] == str(folder / 'deep' / 'c.tiff')
    assert [place.is_video for place in find([folder])] == [False, False, True, False]


def test_patterns(folder):
    assert names(f'{folder}/*') == ['a.PNG', 'b.jpg', 'clip.mp4']
    assert names(f'{folder}/**/*.tiff') == ['c.tiff']
    assert names(f'{folder}/[ab].*') == ['a.PNG', 'b.jpg']


def test_patterns_end_where_links_go_round(folder):
    for name in 'xyz':
        (folder / 'deep' / name).symlink_to(folder)
    assert names(f'{folder}/**/*.tiff') == ['c.tiff']
    assert names(f'{folder}/**') == ['a.PNG', 'b.jpg', 'clip.mp4', 'c.tiff']
    assert names(f'{folder}/**/deep/**/c.*') == ['c.tiff']
    assert names(f'{folder.parent}/i?/**/[ab].*') == ['a.PNG', 'b.jpg']
    assert names(f'{folder}/*/*.tiff') == ['c.tiff']
    assert names(folder) == ['a.PNG', 'b.jpg', 'clip.mp4', 'deep/c.tiff']


def test_a_relative_pattern(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert [place.path for place in find(['**/*.tiff'])] == ['deep/c.tiff']


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can become another user')
def test_a_folder_that_may_not_be_read():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        os.chmod(folder, 0o755)
        (Path(folder) / 'a.jpg').touch()
        (Path(folder) / 'closed').mkdir(0)
        os.seteuid(65534)
        try:
            for given in (folder, f'{folder}/**/*.jpg'):
                with pytest.raises(UserError, match='closed cannot be read: Permission denied'):
                    find([given])
        finally:
            os.seteuid(0)


def test_an_empty_input_is_not_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match='is empty'):
        find([''])


def test_a_name_with_the_signs_of_a_pattern_is_a_name_first(tmp_path):
    (tmp_path / 'photo [1].jpg').touch()
    (tmp_path / 'photo 1.jpg').touch()
    assert names(tmp_path / 'photo [1].jpg') == ['photo [1].jpg']


def test_order_is_as_named_and_nothing_comes_twice(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert names('b.jpg', folder, './b.jpg', 'notes.txt') == [
        'b.jpg', 'a.PNG', 'clip.mp4', 'deep/c.tiff', 'notes.txt'
    ]  # fmt: skip


def test_home(folder, monkeypatch):
    monkeypatch.setenv('HOME', str(folder))
    assert names('~/b.jpg') == ['b.jpg']


def test_addresses():
    first, second, third = find(
        ['https://a.org/x/dog%20and%20cat.jpg?size=2', 'http://a.org/clip.mp4', 'http://a.org']
    )
    assert first.name == 'dog and cat.jpg'
    assert first.is_url
    assert not first.is_video
    assert second.is_video
    assert third.name == 'a.org'
    assert find(['https://a.org/a%00b%0a.jpg'])[0].name == 'a_b_.jpg'


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('b.jpeg', r'b\.jpeg .*in/b\.jpg'),
        ('none/b.jpg', 'no folder'),
        ('*.gif', r'\*\.gif'),
        ('*.txt', r'\*\.txt .*\.jpg'),
        ('empty', r'empty .*\.jpg'),
    ],
)
def test_what_stands_for_nothing(folder, given, message):
    (folder / 'empty').mkdir()
    with pytest.raises(UserError, match=message):
        find([folder / 'b.jpg', Path(folder, given)])


@pytest.mark.parametrize('address', ['s3://a/b.jpg', 'file:///a.png', 'http://[/a.png'])
def test_other_addresses_are_refused(address):
    with pytest.raises(UserError, match=re.escape(address)):
        find([address])
