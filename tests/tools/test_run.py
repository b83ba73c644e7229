"""Scripts of others, mmdet's tools above all, through tools/run.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def metrics_of(log_dir: Path) -> dict[str, float]:
    """The numbers that mmdet's test.py left: a JSON file named after the time of the run."""
    (path,) = log_dir.glob('*/*.json')
    return {key: value for key, value in json.loads(path.read_text()).items() if 'bbox' in key}


def test_a_script_gets_its_arguments_and_its_folder(tool, tmp_path):
    (tmp_path / 'beside.py').write_text('VALUE = 42\n')
    (tmp_path / 'script.py').write_text("""
import sys
from beside import VALUE
assert 'mpvit' in sys.modules
print(__name__, sys.argv[1:], VALUE)
sys.exit(3)
""")
    result = tool('run', tmp_path / 'script.py', '--flag', 'value', status=3)
    assert result.out.endswith("__main__ ['--flag', 'value'] 42\n")


@pytest.mark.slow
def test_mmdets_own_train_and_test(root, trained, tmp_path):
    """In processes of their own: test.py gives our numbers, train.py leaves our checkpoint."""
    environment = dict(os.environ, PYTHONPATH=str(root))

    def call(*arguments: object) -> None:
        command = [sys.executable, '-m', 'mpvit', *map(str, arguments)]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
        assert result.returncode == 0, result.stderr.decode()

    config, checkpoint = trained / 'tiny.py', trained / 'epoch_2.pth'
    call('test', config, checkpoint, '--work-dir', 'ours')
    call('run', 'mmdet/tools/test.py', config, checkpoint, '--work-dir', 'theirs')
    ours = json.loads((tmp_path / 'ours/metrics.json').read_text())['metrics']
    theirs = metrics_of(tmp_path / 'theirs')
    assert set(theirs) >= {'coco/bbox_mAP', 'coco/bbox_mAP_50'}
    assert theirs == pytest.approx({key: ours[key] for key in theirs}, abs=1e-3)
    call('run', 'mmdet/tools/train.py', config, '--work-dir', 'trained')
    assert (tmp_path / 'trained/epoch_2.pth').is_file()
