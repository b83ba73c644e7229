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


def test_registering_again_changes_nothing():
    import importlib

    import mmengine.runner.runner
    from mmdet.registry import MODELS

    from mpvit.engine.hooks.checkpoint import write_checkpoint

    importlib.import_module('mpvit.register')
    assert MODELS.get('MPViT') is not None
    assert mmengine.runner.runner.save_checkpoint is write_checkpoint
