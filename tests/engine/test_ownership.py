"""Which work folder a training gets, and that it has it alone."""

import json
import os
import shutil
from contextlib import ExitStack

import pytest
from mmengine.config import Config

from mpvit.engine import ownership
from mpvit.engine.ownership import evaluation_folder, launched_by, owned_folder
from mpvit.errors import UserError
from mpvit.files import locks


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher, and no patience."""
    for name in ('TORCHELASTIC_RUN_ID', 'SLURM_JOB_ID', 'SLURM_RESTART_COUNT'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(locks, '_PATIENCE', 0)


@pytest.fixture
def get(tmp_path):
    """Get a folder for a training, or one that is wanted; keep it until the test ends."""
    with ExitStack() as stack:

        def call(name='x', *, fixed=False, resume=None, config='x.py', keep=False):
            cfg = Config(dict(work_dir=str(tmp_path / name)), cfg_text='x = 1', filename=config)
            with ExitStack() as own:
                place = own.enter_context(owned_folder(cfg, fixed, resume))
                assert cfg.work_dir == place.folder
                call.note = place.note
                if keep:
                    stack.enter_context(own.pop_all())
            return os.path.relpath(place.folder, tmp_path), place.resume

        yield call


@pytest.fixture
def leave(tmp_path):
    """Leave what a training leaves in a folder."""

    def call(name, *files, **record):
        (tmp_path / name).mkdir(exist_ok=True)
        for file in files:
            (tmp_path / name / file).touch()
        text = json.dumps(dict(dict(config='configs/x.py'), **record))
        (tmp_path / name / 'run.json').write_text(text)

    return call


def test_a_folder_with_checkpoints_is_left_alone(get, leave, tmp_path):
    assert get() == ('x', None)
    assert list(tmp_path.iterdir()) == []  # nothing remains
    leave('x', 'x.py')  # it ended before a checkpoint, of which nothing can be lost
    assert get() == ('x', None)
    assert get(fixed=True) == ('x', None)
    for name in ('epoch_1.pth', 'iter_7.pth', 'best_coco_bbox_mAP_epoch_1.pth'):
        leave('x', name)
        assert get() == ('x_2', None)
        with pytest.raises(UserError, match='--resume, or choose another --work-dir'):
            get(fixed=True)
        assert sorted(path.name for path in (tmp_path / 'x').iterdir()) == sorted(
            ['run.json', 'x.py', name]
        )
        (tmp_path / 'x' / name).unlink()


def test_the_next_free_number(get, leave, tmp_path):
    for name in ('x', 'x_2', 'x_4'):
        leave(name, 'epoch_1.pth')
    (tmp_path / 'x_3').touch()  # a file
    assert get() == ('x_5', None)


def test_a_folder_in_use(get):
    assert get(keep=True) == ('x', None)
    with pytest.raises(UserError, match=rf'x is in use: process {os.getpid()}'):
        get(fixed=True)
    with pytest.raises(UserError, match='in use'):
        get(fixed=True, resume='auto')
    assert get() == ('x_2', None)


def test_which_run_is_resumed(get, leave, tmp_path):
    assert get(resume='auto') == ('x', 'auto')  # starts anew
    for name, day in (('x', 1), ('x_2', 2), ('x_10', 3)):
        leave(name, 'epoch_1.pth', started=f'2026-01-0{day} 00:00:00')
    leave('x_11', 'epoch_1.pth', config='another.py', started='2026-01-04 00:00:00')
    (tmp_path / 'x_12').mkdir()
    assert get(resume='auto') == ('x_10', 'auto')  # the last
    assert 'where this config was trained last (2026-01-03 00:00:00)' in get.note
    leave('x_11', started='2026-01-05 00:00:00')  # it has no checkpoint yet and starts anew
    assert get(resume='auto') == ('x_11', 'auto')
    assert get(resume='auto', fixed=True) == ('x', 'auto')
    assert get.note is None
    own, other = str(tmp_path / 'x_2' / 'epoch_1.pth'), str(tmp_path / 'epoch_1.pth')
    assert get(resume=own) == ('x_2', own)
    assert get.note.endswith(f'x_2 is resumed, where {own} is')
    assert get(resume=other) == ('x', other)


def test_the_last_run_is_the_one_that_was_started_last(get, leave, tmp_path):
    """Whatever its number is: the folder may be a copy, or have got a number that was free."""
    leave('x', 'epoch_1.pth', started='2026-01-02 10:00:00')
    shutil.copytree(tmp_path / 'x', tmp_path / 'x_2')
    leave('x_3', 'epoch_1.pth', started='2026-01-02 09:59:59')
    assert get(resume='auto') == ('x', 'auto')
    assert get.note.startswith(f'{tmp_path / "x"} is resumed')
    assert get.note.endswith(f'left alone: {tmp_path / "x_2"}, {tmp_path / "x_3"}')
    leave('x_2', started='2026-01-02 10:00:01')  # the copy has gone on
    assert get(resume='auto') == ('x_2', 'auto')
    leave('x_2', started=['2026'])  # damaged
    assert get(resume='auto') == ('x', 'auto')


def test_a_launcher_goes_on_in_the_original_and_not_in_a_copy(get, leave, monkeypatch, tmp_path):
    monkeypatch.setenv('SLURM_JOB_ID', '17')
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    leave('x', 'epoch_1.pth', launched_by=launched_by(), started='2026-01-02 10:00:00')
    shutil.copytree(tmp_path / 'x', tmp_path / 'x_2')
    assert get() == ('x', 'auto')


@pytest.mark.parametrize('launcher', ['torchrun', 'Slurm'])
def test_a_run_that_was_started_again_goes_on(get, leave, monkeypatch, launcher):
    if launcher == 'torchrun':
        monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    else:
        monkeypatch.setenv('SLURM_JOB_ID', '17')
        monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    leave('x', 'epoch_1.pth', launched_by=['Slurm job 16', 'torchrun none elsewhere 17'])
    # it died before its first record, or its first checkpoint: there is nothing of it
    assert get() == ('x_2', None)
    with pytest.raises(UserError, match='--resume'):
        get(fixed=True)
    leave('x_2', launched_by=launched_by())
    assert get() == ('x_2', 'auto')
    assert get(resume='start.pth') == ('x_2', 'start.pth')
    leave('x_2', 'epoch_1.pth', launched_by=[*launched_by(), 'torchrun none elsewhere 18'])
    assert get() == ('x_2', 'auto')
    assert get(resume='start.pth') == ('x_2', 'auto')  # not from there once more
    assert get('x_2', fixed=True) == ('x_2', 'auto')
    monkeypatch.setenv('SLURM_RESTART_COUNT', '0')  # two trainings in one job
    assert get() == (('x_2', 'auto') if launcher == 'torchrun' else ('x_3', None))


def test_two_evaluations_but_one_beside_a_training(get, tmp_path):
    get(keep=True)
    cfg = Config(dict(work_dir=str(tmp_path / 'x')))
    with evaluation_folder(cfg):
        with pytest.raises(UserError, match='in use'), evaluation_folder(cfg):
            pass
    assert [path.name for path in (tmp_path / 'x').iterdir()] == ['.lock']


def test_places_that_cannot_be_written(get, tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, 'count', lambda start: iter([start]))
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot be written'):
        get('file/x')
