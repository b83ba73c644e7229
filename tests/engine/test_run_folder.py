"""Finding the parts of a run in its folder."""

import json
import shutil

import pytest
from synthetic_detections import make_up

from mpvit.engine.run_folder import find_run
from mpvit.errors import UserError

CONFIG = """
test_dataloader = dict(dataset=dict(type='RepeatDataset', times=1, dataset=dict(
    data_root='{root}', ann_file='truth.json', data_prefix=dict(img='pictures/'),
    metainfo=dict(classes=('class 0', 'class 1')))))
custom_imports = dict(imports=['there_is_no_such_module'], allow_failed_imports=False)
"""


def test_folders_that_hold_no_run(tmp_path):
    with pytest.raises(UserError, match='none not found'):
        find_run(tmp_path / 'none')
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='is a file'):
        find_run(tmp_path / 'file')
    run = find_run(tmp_path)
    assert (run.evaluation, run.config, run.checkpoint, run.data()) == ({}, None, None, {})
    (tmp_path / 'last_checkpoint').touch()  # as a training leaves it until its first checkpoint
    assert run.checkpoint is None
    with pytest.raises(UserError, match=r'detections.bbox.json'):
        run.results()


def test_files_are_found_by_what_the_evaluation_recorded(tmp_path):
    work = tmp_path / 'work'
    work.mkdir()
    truth, found = make_up(tmp_path, 5, 3)
    found.rename(work / 'elsewhere.bbox.json')
    data = dict(annotations=str(truth), images=str(tmp_path), classes=['class 1'])
    data['detections'] = str(work / 'elsewhere.bbox.json')
    (work / 'metrics.json').write_text(json.dumps(dict(checkpoint='a.pth', data=data)))
    run = find_run(work)
    assert run.results().names == ('class 1',)
    assert run.results().exif_turns is None  # recorded by an older version
    run.evaluation['data']['exif_turns'] = True
    assert run.results().exif_turns is True
    assert str(run.checkpoint) == 'a.pth'
    truth.unlink()
    with pytest.raises(UserError, match='truth.json .* --ann'):
        find_run(work).results()


def test_a_copied_folder_is_about_its_own_detections(tmp_path):
    first, copy = tmp_path / 'first', tmp_path / 'copy'
    first.mkdir()
    truth, found = make_up(tmp_path, 5, 3)
    found.rename(first / 'detections.bbox.json')
    data = dict(annotations=str(truth), detections=str(first / 'detections.bbox.json'))
    (first / 'metrics.json').write_text(json.dumps(dict(data=data)))
    shutil.copytree(first, copy)
    (first / 'detections.bbox.json').write_text('[]')  # evaluated again
    assert len(find_run(copy).results().detected.score)
    assert not len(find_run(first).results().detected.score)


def test_files_are_found_by_the_config_of_an_older_evaluation(tmp_path):
    make_up(tmp_path, 5, 3)
    (tmp_path / 'tiny_test.py').write_text(CONFIG.format(root=tmp_path))
    run = find_run(tmp_path)
    assert run.results().names == ('class 0', 'class 1')
    assert run.results().files[0] == tmp_path.resolve() / 'pictures' / '1.jpg'
    assert run.config_file.name == 'tiny_test.py'
    (tmp_path / 'tiny.py').write_text('model = dict(type="A")')
    assert find_run(tmp_path).config.model.type == 'A'


def test_broken_records_are_named(tmp_path):
    (tmp_path / 'metrics.json').write_text('{')
    with pytest.raises(UserError, match=r'metrics.json is no JSON'):
        _ = find_run(tmp_path).evaluation
    (tmp_path / 'tiny.py').write_text('model = (')
    with pytest.raises(UserError, match='cannot read config .*tiny.py'):
        _ = find_run(tmp_path).config


def test_detections_without_a_word_about_the_data(tmp_path):
    make_up(tmp_path, 5, 3)
    with pytest.raises(UserError, match='does not say what was evaluated'):
        find_run(tmp_path).results()
