import os

import pytest
from PIL import Image

from mpvit.app.sources import Source, choose_sources, find_pictures
from mpvit.errors import UserError


def write(path, age):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
    os.utime(path, (1e9 - age, 1e9 - age))
    return str(path)


def test_checkpoints_are_found_newest_first_with_the_config_of_their_training(tmp_path):
    old = write(tmp_path / 'a' / 'epoch_1.pth', age=20)
    new = write(tmp_path / 'b' / 'c' / 'epoch_2.pth', age=10)
    write(tmp_path / 'a' / 'a.py', age=20)
    write(tmp_path / 'b' / 'c' / 'c.py', age=10)
    write(tmp_path / 'none' / 'weights.pth', age=0)  # no config beside it
    assert choose_sources(None, None, tmp_path) == [
        Source('b/c/epoch_2.pth', new, new),  # the config inside, which is not executed
        Source('a/epoch_1.pth', old, old),
    ]


def test_of_checkpoints_copied_at_once_the_last_step_is_first(tmp_path):
    write(tmp_path / 'a.py', age=0)
    for second, step in enumerate((12, 9, 14)):
        write(tmp_path / f'epoch_{step}.pth', age=40 - second)
    assert [source.name for source in choose_sources(None, None, tmp_path)] == [
        'epoch_14.pth',
        'epoch_12.pth',
        'epoch_9.pth',
    ]


def test_named_checkpoint_is_the_only_one(tmp_path):
    write(tmp_path / 'a' / 'epoch_1.pth', age=0)
    write(tmp_path / 'a' / 'a.py', age=0)
    named = Source('x.pth', 'configs/mine.py', 'elsewhere/x.pth')
    assert choose_sources('configs/mine.py', 'elsewhere/x.pth', tmp_path) == [named]


@pytest.mark.parametrize('folder', ['empty', 'missing'])
def test_without_a_checkpoint_the_way_to_one_is_told(tmp_path, folder):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='run `make demo` first'):
        choose_sources(None, None, tmp_path / folder)


def test_pictures_are_found_in_all_folders_by_suffix(tmp_path):
    (tmp_path / 'b').mkdir()
    for name in ('b/2.JPG', 'a.png'):
        Image.new('RGB', (4, 4)).save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('')
    (tmp_path / 'folder.png').mkdir()
    assert find_pictures(tmp_path) == [tmp_path / 'a.png', tmp_path / 'b' / '2.JPG']


def test_folder_without_pictures_is_refused_only_if_it_was_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match='no picture in it'):
        find_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert find_pictures(None) == []
