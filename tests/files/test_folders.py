"""A folder appears whole or not at all."""

import pytest

from mpvit.files.folders import written_whole


def test_it_is_there_when_all_is_written(tmp_path):
    with written_whole(tmp_path / 'new') as work:
        (work / 'a').write_text('b')
        assert not (tmp_path / 'new').exists()
    assert [path.name for path in tmp_path.iterdir()] == ['new']
    assert (tmp_path / 'new' / 'a').read_text() == 'b'
    assert (tmp_path / 'new').stat().st_mode & 0o777 == 0o755


def test_it_is_not_there_if_anything_goes_wrong(tmp_path):
    def write():
        with written_whole(tmp_path / 'new') as work:
            (work / 'a').touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_by_then_is_kept(tmp_path):
    def write():
        with written_whole(tmp_path / 'new'):
            (tmp_path / 'new').mkdir()
            (tmp_path / 'new' / 'mine').touch()

    with pytest.raises(OSError, match='not empty'):
        write()
    assert [path.name for path in tmp_path.rglob('*')] == ['new', 'mine']
