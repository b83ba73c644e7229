"""A module that lies beside a config is found by every command, from any folder."""

import sys

import pytest
from mmdet.registry import MODELS

BACKBONE = """
from mmdet.registry import MODELS
from mpvit.models.mpvit import MPViT


@MODELS.register_module()
class Mine(MPViT):
    pass
"""


@pytest.fixture
def afresh(tool, monkeypatch):
    """Call a tool as a new process would: what was imported and where from is forgotten."""

    def call(*words, **more):
        with monkeypatch.context() as patch:
            patch.setattr(sys, 'path', [*sys.path])
            patch.setattr(MODELS, '_module_dict', dict(MODELS.module_dict))
            try:
                return tool(*words, **more)
            finally:
                sys.modules.pop('my_module', None)

    return call


@pytest.mark.slow
def test_train_infer_and_export(afresh, tiny, toy, tmp_path):
    place = tmp_path / 'project'
    place.mkdir()
    (place / 'my_module.py').write_text(BACKBONE)
    config, work = place / 'mine.py', tmp_path / 'work'
    config.write_text(
        f"_base_ = '{tiny[0]}'\n"
        "custom_imports = dict(imports=['mpvit.register', 'my_module'])\n"
        "model = dict(backbone=dict(type='Mine'))\n"
    )
    steps = [*tiny[1], 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9']
    afresh('train', config, '--work-dir', work, '--cfg-options', *steps)
    checkpoint = work / 'epoch_1.pth'
    photo = min((toy / 'val2017').iterdir())
    afresh('infer', config, checkpoint, photo, '--no-pictures', '--out', tmp_path / 'found')
    assert (tmp_path / 'found' / 'detections.json').is_file()
    afresh('export', config, checkpoint, '--out', tmp_path / 'mine.onnx')
    assert (tmp_path / 'mine.onnx').is_file()
    # the copy in the work folder has no module beside it
    elsewhere = ('infer', work / 'mine.py', checkpoint, photo)
    assert "No module named 'my_module'" in afresh(*elsewhere, status=1).err
