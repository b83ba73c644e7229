"""The demo reaches what the README promises."""

import json
import resource
import subprocess
import sys

import pytest
from PIL import Image


@pytest.mark.slow
def test_demo_learns_in_ten_minutes(root, tmp_path):
    """Of two processors; what else they have to do does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, 'tools/demo.py', '--work-dir', str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    metrics = json.loads((tmp_path / 'metrics.json').read_text())['metrics']
    print(f'AP {metrics["coco/bbox_mAP"]} in {seconds:.0f} s of CPU')
    assert metrics['coco/bbox_mAP'] >= 0.40
    assert seconds < 2 * 600
    for picture in ('curves.png', 'contact_sheet.png'):
        assert Image.open(tmp_path / picture).width > 800
