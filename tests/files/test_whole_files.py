"""Files and folders that are whole or not there, whatever happens while they are written."""

import os
import signal

import pytest
from file_limits import limited_files

from mpvit.files.writing import (
    NotWritten,
    check_writable,
    remove_unfinished,
    whole_file,
    whole_folder,
    write,
)

OLD, NEW = b'old' * 1000, b'new' * 50_000


@pytest.fixture
def old(tmp_path):
    """A file that is there already."""
    path = tmp_path / 'results' / 'old.json'
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def assert_as_it_was(path):
    assert path.read_bytes() == OLD
    assert list(path.parent.iterdir()) == [path]


def run(context, act):
    """Call a function with the path that is to be written."""
    with context as beside:
        act(beside)


def test_a_file_is_there_when_all_of_it_is(tmp_path):
    target = tmp_path / 'new' / 'a.txt'
    with whole_file(target) as beside:
        beside.write_text('all')
        assert beside.name == 'a.txt'
        assert not target.exists()
    assert target.read_text() == 'all'
    assert [path.name for path in target.parent.iterdir()] == ['a.txt']
    (tmp_path / 'plain').touch()
    assert target.stat().st_mode == (tmp_path / 'plain').stat().st_mode


@pytest.mark.parametrize('error', [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_an_error_leaves_what_was_there(old, error):
    def act(beside):
        beside.write_bytes(NEW)
        raise error

    with pytest.raises(error):
        run(whole_file(old), act)
    assert_as_it_was(old)


def test_a_file_that_is_too_large_leaves_what_was_there(old):
    with limited_files(10_000):
        with pytest.raises(NotWritten, match=r'old\.json cannot be written \(File too large\)'):
            write(old, NEW)
    assert_as_it_was(old)


def test_a_kill_leaves_what_was_there_and_a_hidden_folder(old):
    child = os.fork()
    if child == 0:
        with whole_file(old) as beside:
            beside.write_bytes(NEW)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert old.read_bytes() == OLD
    assert len([*old.parent.iterdir()]) == 2
    remove_unfinished(old.parent)
    assert_as_it_was(old)


def test_errors_of_other_files_pass(old, tmp_path):
    with pytest.raises(FileNotFoundError, match='other'), whole_file(old):
        (tmp_path / 'other').read_bytes()
    assert_as_it_was(old)


def test_a_file_that_another_program_wrote_is_kept(tmp_path):
    def act(beside):
        beside.touch()
        (tmp_path / 'new').write_text('mine')

    with pytest.raises(NotWritten, match='another program'):
        run(whole_file(tmp_path / 'new', new=True), act)
    assert (tmp_path / 'new').read_text() == 'mine'


@pytest.mark.parametrize('durable', [False, True])
def test_a_link_is_replaced_and_what_it_led_to_is_left_alone(old, tmp_path, durable):
    (tmp_path / 'link').symlink_to(old)
    with whole_file(tmp_path / 'link', durable=durable) as place:
        place.write_text('new')
    assert old.read_bytes() == OLD
    assert not (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'link').read_text() == 'new'


def test_text_that_is_no_unicode_becomes_an_escape(tmp_path):
    assert write(tmp_path / 'a.json', '"\ud800ü"').read_bytes() == '"\\ud800ü"'.encode()


def test_a_folder_is_there_when_all_is_written(tmp_path):
    (tmp_path / 'plain').mkdir()
    with whole_folder(tmp_path / 'new') as work:
        (work / 'a').write_text('b')
        assert not (tmp_path / 'new').exists()
    assert {path.name for path in tmp_path.iterdir()} == {'plain', 'new'}
    assert (tmp_path / 'new' / 'a').read_text() == 'b'
    assert (tmp_path / 'new').stat().st_mode == (tmp_path / 'plain').stat().st_mode


def test_a_folder_is_not_there_if_anything_goes_wrong(tmp_path):
    def act(beside):
        (beside / 'a').touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(whole_folder(tmp_path / 'new'), act)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_program_wrote_is_kept(tmp_path):
    def act(beside):
        (tmp_path / 'new').mkdir()
        (tmp_path / 'new' / 'mine').touch()

    with pytest.raises(NotWritten, match='not empty'):
        run(whole_folder(tmp_path / 'new'), act)
    assert [path.name for path in tmp_path.rglob('*')] == ['new', 'mine']


@pytest.mark.parametrize('folder', [False, True])
def test_what_can_be_written(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    for target in ('a', 'a/b/c', tmp_path / 'd' / 'e', '../x'):
        check_writable(target, folder=folder)
    (tmp_path / 'there').mkdir()
    check_writable(tmp_path / 'there', folder=True)
    (tmp_path / 'file').touch()
    check_writable(tmp_path / 'file')
    assert {path.name for path in tmp_path.iterdir()} == {'there', 'file'}


@pytest.mark.parametrize(
    ('target', 'folder', 'helps'),
    [
        ('x' * 256, False, 'name too long'),
        (f'new/{"x" * 256}/a.json', False, 'name too long'),
        ('x' * 256, True, 'name too long'),
        ('a\0b', False, 'null'),
        ('file/a.json', False, 'folder|directory'),
        ('file', True, 'no folder'),
        ('.', False, 'it is a folder'),
        ('nowhere', True, 'no folder'),
        ('nowhere', False, 'no regular file'),
        ('loop/a.json', False, 'symbolic links|folder|directory'),
        ('/dev/null', False, 'no regular file'),
        ('/proc/new/a.json', False, ''),
    ],
)
def test_what_cannot_be_written(tmp_path, monkeypatch, target, folder, helps):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    (tmp_path / 'nowhere').symlink_to('gone')
    (tmp_path / 'loop').symlink_to('loop')
    with pytest.raises(NotWritten, match=f'cannot be written.*({helps})'):
        check_writable(target, folder=folder)
    writing = whole_folder if folder else whole_file
    with pytest.raises(NotWritten):
        run(writing(target), lambda beside: None if folder else beside.touch())


def test_configs_are_whole_or_not_there(tmp_path):
    from mmengine.config import Config

    import mpvit.register  # noqa: F401

    config = Config(dict(model=dict(type='x' * 5000)))
    with limited_files(1000), pytest.raises(NotWritten, match=r'config\.py'):
        config.dump(tmp_path / 'config.py')
    assert not list(tmp_path.iterdir())
    config.dump(tmp_path / 'config.py')
    assert Config.fromfile(tmp_path / 'config.py').model == config.model
    assert config.dump() == (tmp_path / 'config.py').read_text()
