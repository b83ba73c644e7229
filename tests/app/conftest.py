"""A folder of work folders with a detector that finds something."""

import pytest
from app_checkpoint import write_checkpoint


@pytest.fixture(scope='session')
def work_dirs(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('work_dirs')
    write_checkpoint(root / 'tests/data/tiny.py', folder / 'tiny')
    return folder
