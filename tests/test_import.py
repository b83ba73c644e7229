"""`import mpvit` is quick and changes nothing; `mpvit.register` does what is to be done, once."""

import subprocess
import sys

import pytest


def fresh(root, code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    'module',
    ['mpvit', 'mpvit.cli._main', 'mpvit.inference', 'mpvit.files.paths'],
)
def test_importing_changes_nothing(root, module):
    code = f"""
import os, sys, warnings
before = dict(os.environ), list(warnings.filters), set(sys.meta_path)
import {module}
assert before == (dict(os.environ), list(warnings.filters), set(sys.meta_path))
print({{'torch', 'mmdet', 'mmcv', 'mmengine', 'numpy'}} & {{*sys.modules}})
"""
    assert fresh(root, code) == 'set()'


def test_importing_the_package_takes_milliseconds(root):
    code = """
import time
start = time.process_time()
import mpvit
print(time.process_time() - start)
"""
    assert float(fresh(root, code)) < 0.05


def test_the_tools_that_draw_do_not_wait_for_torch(root):
    code = """
import sys
import mpvit.evaluation.analysis, mpvit.visualization.curves, mpvit.visualization.report
import mpvit.visualization.dataset_picture, mpvit.visualization.error_pictures
print({'torch', 'mmdet'} & {*sys.modules})
"""
    assert fresh(root, code) == 'set()'


def test_backbones_do_not_import_mmdets_models(root):
    """Without `mpvit.register` these cannot be imported everywhere."""
    code = "import sys, mpvit.models.mpvit, mpvit.models.coat; print('mmdet.models' in sys.modules)"
    assert fresh(root, code) == 'False'


ENTRIES = [
    'from mpvit.inference import Detector',
    'from mpvit.inference import load_detector',
    'from mpvit.inference import prepare',
    'from mpvit.model_info import model_info',
    'from mpvit.export.files import export',
    'from mpvit.app.server import serve',
    'from mpvit.visualization.queries import draw',
    'import mpvit; mpvit.get_config(OWN)',
    'import mpvit.register; from mpvit.engine.train import train',
    'import mpvit.register; from mpvit.engine.test import evaluate',
    'from mpvit.cli.check_dataset import _settings; _settings(OWN)',
]


def test_what_users_import_first_works_by_itself(root, tmp_path):
    """Each in a process that has imported libraries only, nothing of mmdet or this project."""
    own = tmp_path / 'own.py'
    own.write_text("_base_ = 'mpvit::deformable_detr/mpvit_t_ddetr_toy.py'\n")
    code = f"""
import os, sys, traceback, warnings
import cv2, matplotlib.pyplot, mmcv.cnn, mmengine.runner, torchvision, scipy.optimize, timm
warnings.simplefilter('ignore')
for entry in {ENTRIES!r}:
    child = os.fork()
    if not child:
        try:
            exec(entry, {{'OWN': {str(own)!r}}})
        except BaseException:
            print(entry)
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""
    assert fresh(root, code) == ''


def test_registering_again_changes_nothing():
    import importlib

    import mmengine.runner.runner
    from mmdet.registry import MODELS

    from mpvit.engine.hooks.checkpoint import write_checkpoint

    importlib.import_module('mpvit.register')
    assert MODELS.get('MPViT') is not None
    assert mmengine.runner.runner.save_checkpoint is write_checkpoint
