"""torch and torchvision of different builds are told in one line."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torchvision

from mpvit.cli import _builds
from mpvit.cli._builds import mixed_builds

NMS = RuntimeError('operator torchvision::nms does not exist')
MIXED = [
    NMS,
    RuntimeError(
        'Detected that PyTorch and torchvision were compiled with different CUDA major versions. '
        'PyTorch has CUDA Version=13.0 and torchvision has CUDA Version=12.4.'
    ),
    ImportError('/site-packages/torchvision/_C.so: undefined symbol: _ZN3c1017RegisterOperators'),
    OSError('/site-packages/torchvision/_C.so: undefined symbol: _ZN3c1017RegisterOperators'),
    AttributeError("partially initialized module 'torchvision' has no attribute 'extension'"),
    NotImplementedError("Could not run 'torchvision::nms' with arguments from the 'CUDA' backend."),
]


@pytest.mark.parametrize('error', MIXED, ids=lambda error: type(error).__name__)
def test_what_torchvision_raises_is_known(error):
    line = mixed_builds(error)
    assert f'and torchvision {torchvision.__version__} do not fit' in line
    assert '\n' not in line


@pytest.mark.parametrize(
    'error',
    [
        RuntimeError('CUDA error: out of memory'),
        ModuleNotFoundError("No module named 'torchvision'", name='torchvision'),
        AttributeError("module 'torchvision.models' has no attribute 'resnet51'"),
    ],
    ids=str,
)
def test_other_errors_are_left_alone(error):
    assert mixed_builds(error) is None


@pytest.mark.parametrize(
    ('torch', 'wanted'),  # pairs of PyTorch's table
    [
        ('2.4.1+cpu', 'torchvision==0.19.1 --index-url https://download.pytorch.org/whl/cpu`'),
        ('2.5.0+cu124', 'torchvision==0.20.0 --index-url https://download.pytorch.org/whl/cu124`'),
        ('2.9.1', 'torchvision==0.24.1`'),
        ('2.10.0a0+gitdeadbee', 'torchvision==0.25.0`'),
    ],
)
def test_the_torchvision_that_fits_is_named(torch, wanted, monkeypatch):
    versions = dict(torch=torch, torchvision='0.28.0+cu130')
    read = _builds._VERSION.search
    monkeypatch.setattr(_builds, '_version', lambda name: read(f"__version__ = '{versions[name]}'"))
    line = mixed_builds(NMS)
    assert f'torch {torch} and torchvision 0.28.0+cu130' in line
    assert line.endswith(wanted)


def test_a_command_with_a_torchvision_that_does_not_load(root, tmp_path):
    """Its compiled part is not there, as one for another torch is not to torchvision."""
    (tmp_path / 'torchvision').mkdir()
    for file in Path(find_spec('torchvision').origin).parent.iterdir():
        if not file.name.startswith('_C'):
            (tmp_path / 'torchvision' / file.name).symlink_to(file)
    result = subprocess.run(
        [sys.executable, '-m', 'mpvit', 'model_info', 'mpvit_t_ddetr_toy'],
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{root}'},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.startswith('error: torch ')
    assert 'install the torchvision of this torch: `pip install' in result.stderr
    assert len(result.stderr.splitlines()) == 1
