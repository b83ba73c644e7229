"""The folder of results, apart from what the tests of the tool see of it."""

import pytest

from mpvit.errors import UserError
from mpvit.inference import outputs
from mpvit.inference.outputs import Outputs


def test_no_file_stays_open_where_the_folder_cannot_be_written(tmp_path, monkeypatch):
    files = []

    def opened(path):
        files.append(original(path))
        return files[-1]

    original = outputs._opened
    monkeypatch.setattr(outputs, '_opened', opened)
    (tmp_path / 'detections.csv').mkdir()
    with pytest.raises(UserError, match='cannot be written: Is a directory'):
        Outputs(tmp_path, ('a',), {}, pictures=False)
    assert [file.closed for file in files] == [True, True]
    with pytest.raises(TypeError):  # settings that JSON cannot hold
        Outputs(tmp_path, ('a',), dict(size=object()), pictures=False)
    assert len(files) == 2
