"""What a run leaves in its folder, and finding it there."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from synthetic_detections import make_up

from mpvit.engine import run_folder
from mpvit.engine.run_folder import find_run, last_checkpoint, software, write_record
from mpvit.engine.test import evaluated_data, keep_detections
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


@pytest.mark.parametrize(
    ('name', 'content', 'entry'),
    [
        ('metrics.json', dict(checkpoint=5), 'checkpoint'),
        ('metrics.json', dict(data=[]), 'data'),
        ('metrics.json', dict(data=dict(annotations=5)), 'data.annotations'),
        ('metrics.json', dict(data=dict(detections=[1])), 'data.detections'),
        ('metrics.json', dict(data=dict(classes=5)), 'data.classes'),
        ('metrics.json', dict(metrics=[1]), 'metrics'),
        ('metrics.json', dict(software=[1]), 'software'),
        ('metrics.json', dict(inference='x'), 'inference'),
        ('run.json', dict(settings='abc'), 'settings'),
        ('run.json', dict(software='x'), 'software'),
        ('run.json', dict(settings=dict(model=3)), 'model'),
        ('run.json', dict(settings=dict(model=dict(backbone=3))), 'model.backbone'),
        ('run.json', dict(settings=dict(train_cfg=3)), 'train_cfg'),
        ('run.json', dict(settings=dict(train_dataloader=[])), 'train_dataloader'),
        ('run.json', dict(settings=dict(optim_wrapper=dict(optimizer=3))), 'optimizer'),
    ],
)
def test_entries_of_another_kind_are_named(tmp_path, name, content, entry):
    (tmp_path / name).write_text(json.dumps(content))
    run = find_run(tmp_path)
    with pytest.raises(UserError, match=rf'{name} .*{entry} is .*, not '):
        print(run.evaluation, run.config)


def test_a_scale_of_another_kind_is_no_scale():
    step = dict(type='Resize', scale=('a', 1))
    dataset = dict(ann_file='a.json', pipeline=[step])
    assert run_folder.data_of(dict(test_dataloader=dict(dataset=dataset)), 'test')


def test_a_damaged_entry_does_not_lose_the_id_of_a_run(tmp_path):
    (tmp_path / 'run.json').write_text(json.dumps(dict(id='a1', settings=3)))
    assert run_folder.run_of(tmp_path) == 'a1'


def test_without_an_evaluation_the_config_says_where_data_are(tmp_path):
    make_up(tmp_path, 5, 3)
    (tmp_path / 'tiny_test.py').write_text(CONFIG.format(root=tmp_path))
    run = find_run(tmp_path)
    assert run.results().names == ('class 0', 'class 1')
    assert run.results().files[0] == tmp_path.resolve() / 'pictures' / '1.jpg'
    assert run.config_file.name == 'tiny_test.py'
    (tmp_path / 'tiny.py').write_text('model = dict(type="A")')
    assert find_run(tmp_path).config.model.type == 'A'


def test_no_config_in_the_folder_is_executed(tmp_path):
    """Neither one that somebody put there nor, for a run of an earlier version, its own."""
    (tmp_path / 'tiny.py').write_text(f'open({str(tmp_path / "executed")!r}, "w")')
    with pytest.raises(UserError, match='as data'):
        _ = find_run(tmp_path).config
    for record in ('metrics.json', 'run.json'):
        settings = dict(model=dict(type=record))
        (tmp_path / record).write_text(json.dumps(dict(settings=settings)))
        if record == 'metrics.json':  # it is of a test, and the file of a training
            (tmp_path / 'tiny.py').rename(tmp_path / 'tiny_test.py')
        assert find_run(tmp_path).config.model.type == record
    assert not (tmp_path / 'executed').exists()


def test_detections_without_a_word_about_the_data(tmp_path):
    make_up(tmp_path, 5, 3)
    with pytest.raises(UserError, match='does not say what was evaluated'):
        find_run(tmp_path).results()


def test_the_config_is_recorded_as_json(tmp_path):
    settings = dict(
        work_dir=str(tmp_path),
        scale=(640, 480),
        lr=np.float32(0.5),
        kind=DetLocalVisualizer,
        many={2, 1},
        endless=float('inf'),
    )
    write_record(Config(settings, filename=__file__), seed=1)
    found = find_run(tmp_path)
    assert found.training['seed'] == 1
    assert (found.config.scale, found.config.lr, found.config.endless) == ([640, 480], 0.5, np.inf)
    assert found.config.many == ['1', '2']


def test_before_the_first_checkpoint_none_is_named(tmp_path):
    assert last_checkpoint(tmp_path) == 'no checkpoint had been written'
    (tmp_path / 'last_checkpoint').write_text('')  # as a training that begins leaves it
    assert last_checkpoint(tmp_path) == 'no checkpoint had been written'
    (tmp_path / 'last_checkpoint').unlink()
    os.mkfifo(tmp_path / 'last_checkpoint')  # which nobody writes to
    assert last_checkpoint(tmp_path) == 'no checkpoint had been written'
    (tmp_path / 'last_checkpoint').unlink()


def config(evaluator):
    dataset = dict(data_root='data/x', ann_file='a.json', data_prefix=dict(img='images'))
    return Config(
        dict(work_dir='work', test_evaluator=evaluator, test_dataloader=dict(dataset=dataset))
    )


@pytest.mark.parametrize('kind', ['CocoBoxMetric', 'CocoMetric'])
def test_detections_go_into_the_work_folder(kind):
    cfg = config([dict(type=kind), dict(type='DumpDetResults')])
    keep_detections(cfg)
    assert cfg.test_evaluator[0].outfile_prefix == 'work/detections'
    assert 'outfile_prefix' not in cfg.test_evaluator[1]
    here = Path.cwd()
    assert evaluated_data(cfg) == dict(
        annotations=str(here / 'data/x/a.json'),
        images=str(here / 'data/x/images'),
        classes=None,
        exif_turns=None,
        detections=str(here / 'work/detections.bbox.json'),
    )


@pytest.mark.parametrize(('colour', 'turns'), [('color', True), ('unchanged', False)])
def test_whether_images_are_turned_is_recorded(colour, turns):
    cfg = config(dict(type='CocoBoxMetric'))
    load = dict(type='LoadImageFromFile', color_type=colour)
    cfg.test_dataloader.dataset.pipeline = [load]
    keep_detections(cfg)
    assert evaluated_data(cfg)['exif_turns'] is turns


def test_another_evaluator_is_left_alone():
    cfg = config(dict(type='VOCMetric'))
    keep_detections(cfg)
    assert cfg.test_evaluator == dict(type='VOCMetric')
    assert 'detections' not in evaluated_data(cfg)


def test_software_and_revision(root, monkeypatch, tmp_path):
    found = software()
    assert found['torch']
    assert found['mmdet']
    assert found['device']
    if (root / '.git').exists():
        head = subprocess.run(
            ['git', 'rev-parse', 'HEAD'], cwd=root, capture_output=True, text=True, check=True
        ).stdout
        assert head.startswith(found['revision'].removesuffix('-dirty'))
    # installed into an environment that lies in some repository
    monkeypatch.setattr(run_folder, '__file__', str(tmp_path / 'mpvit' / 'run_folder.py'))
    assert 'revision' not in software()
