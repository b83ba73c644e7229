"""What an evaluation leaves beside its numbers."""

import subprocess
from pathlib import Path

import pytest
from mmengine.config import Config

from mpvit.engine import run_record
from mpvit.engine.run_record import evaluated_data, keep_detections, software


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


def test_a_place_that_the_user_chose_stays():
    cfg = config(dict(type='CocoBoxMetric', outfile_prefix='mine'))
    keep_detections(cfg)
    assert cfg.test_evaluator.outfile_prefix == 'mine'


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
    monkeypatch.setattr(run_record, '__file__', str(tmp_path / 'mpvit' / 'run_record.py'))
    assert 'revision' not in software()
