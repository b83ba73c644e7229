"""Wheels are fetched by pip, checked and read; a program in the place of pip copies small ones."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import partial
from importlib.machinery import PathFinder
from types import SimpleNamespace

import pytest

from mpvit.errors import UserError
from mpvit.files import wheels
from mpvit.files.wheels import Wheel, contents, fetched

FILE = 'things-1.0-py3-none-any.whl'
COPIES = """
import shutil, sys
print(sys.argv[1:], file=open(__file__ + '.calls', 'a'))
shutil.copy({source!r}, sys.argv[sys.argv.index('--dest') + 1])
"""


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The wheel of an index, and the calls of the pip that downloads it."""
    source = tmp_path / 'index' / FILE
    source.parent.mkdir()
    with zipfile.ZipFile(source, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('things/a.txt', 'first')
        archive.writestr('things/b.bin', bytes(1000))
    program = tmp_path / 'index' / 'pip.py'
    program.write_text(COPIES.format(source=str(source)))
    monkeypatch.setattr(wheels, '_pip', lambda: [sys.executable, str(program)])
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    calls = program.with_name('pip.py.calls')
    return (
        Wheel('things', '1.0', hashlib.sha256(source.read_bytes()).hexdigest()),
        lambda: calls.read_text().splitlines() if calls.exists() else [],
    )


def test_it_is_downloaded_once(index, tmp_path, capsys):
    wheel, calls = index
    path = fetched(wheel)
    assert path == tmp_path / 'cache' / 'mpvit' / 'wheels' / 'things-1.0' / FILE
    assert contents(path, ['things/a.txt']) == {'things/a.txt': b'first'}
    assert 'Downloading things==1.0' in capsys.readouterr().err
    assert fetched(wheel) == path
    assert capsys.readouterr().err == ''
    (call,) = calls()
    for word in ('download', '--no-deps', '--only-binary', ':all:', 'things==1.0'):
        assert f"'{word}'" in call


def test_the_home_folder_has_the_cache_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    place = Wheel('things', '1.0', '').place
    assert place == tmp_path / '.cache' / 'mpvit' / 'wheels' / 'things-1.0' / FILE


def kept(folder):
    return [path.name for path in folder.rglob('*') if path.is_file() and path.suffix != '.lock']


def test_another_file_is_not_kept(index, tmp_path):
    wheel, calls = index
    with pytest.raises(UserError, match=f'wheel {FILE} has the sha256 .* should have {"0" * 64}'):
        fetched(replace(wheel, sha256='0' * 64))
    assert len(calls()) == 1
    assert kept(tmp_path / 'cache') == []


def test_a_damaged_file_among_the_downloads_is_told(index):
    wheel, calls = index
    path = fetched(wheel)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f'{path} .*damaged.*deleted'):
        fetched(wheel)
    assert path.exists()
    assert len(calls()) == 1


def test_a_file_put_there_by_hand_is_taken(index, tmp_path):
    wheel, calls = index
    wheel.place.parent.mkdir(parents=True)
    shutil.copy(tmp_path / 'index' / FILE, wheel.place)
    assert fetched(wheel) == wheel.place
    assert calls() == []


def test_without_an_index_it_is_one_line_of_pip_and_nothing_is_kept(tmp_path, monkeypatch):
    if PathFinder.find_spec('pip') is None:
        pytest.skip('this Python has no pip')
    for name, value in dict(XDG_CACHE_HOME=tmp_path, PIP_CONFIG_FILE='/dev/null').items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.delenv('PIP_FIND_LINKS', raising=False)
    with pytest.raises(UserError) as caught:
        fetched(Wheel('things', '1.0', '0' * 64))
    message = str(caught.value)
    assert 'things==1.0 cannot be downloaded with pip: No matching distribution' in message
    assert str(tmp_path / 'mpvit' / 'wheels' / 'things-1.0') in message
    assert FILE in message
    assert '\n' not in message
    assert kept(tmp_path) == []


def test_uv_fetches_pip_where_there_is_none(monkeypatch):
    assert wheels._pip()[0] == (sys.executable if PathFinder.find_spec('pip') else 'uv')
    monkeypatch.setattr(wheels, 'PathFinder', SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr(shutil, 'which', lambda name, path: f'/bin/{name}')
    assert wheels._pip() == ['/bin/uv', 'tool', 'run', '--python', sys.executable, 'pip']
    monkeypatch.setattr(shutil, 'which', lambda name, path: None)
    with pytest.raises(UserError, match='neither pip nor uv'):
        wheels._pip()


def test_looking_for_pip_leaves_setuptools_importable():
    code = 'from mpvit.files.wheels import _pip; _pip(); import distutils.core, setuptools'
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)


def test_a_folder_that_cannot_be_written(index, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    with pytest.raises(UserError, match='cannot be written: Not a directory'):
        fetched(index[0])


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        (['things/c.txt'], 'things/c.txt'),
        (['a.txt'], 'a.txt'),  # an exact name
        (['things/a.txt', 'things/b.bin'], 'things/b.bin has more than 100 bytes'),
    ],
)
def test_contents_are_limited_to_what_is_there_and_small(index, monkeypatch, names, words):
    monkeypatch.setattr(wheels, '_MOST_BYTES', 100)
    read = partial(contents, fetched(index[0]))
    assert read(['things/a.txt'])
    with pytest.raises(UserError, match=words):
        read(names)


def test_no_archive(tmp_path):
    (tmp_path / FILE).write_text('text')
    with pytest.raises(UserError, match='is no wheel'):
        contents(tmp_path / FILE, ['a'])
