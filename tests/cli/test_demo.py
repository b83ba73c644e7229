"""The demo reaches what the README promises."""

import json
import subprocess
import sys
import time

import pytest
from PIL import Image


@pytest.mark.slow
def test_demo_learns_in_ten_minutes(root, tmp_path):
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, 'tools/demo.py', '--work-dir', str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    seconds = time.monotonic() - start
    metrics = json.loads((tmp_path / 'metrics.json').read_text())['metrics']
    print(f'AP {metrics["coco/bbox_mAP"]} in {seconds:.0f} s')
    assert metrics['coco/bbox_mAP'] >= 0.40
    assert seconds < 600
    for picture in ('curves.png', 'contact_sheet.png'):
        assert Image.open(tmp_path / picture).width > 800
