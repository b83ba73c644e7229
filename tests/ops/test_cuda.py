"""mmcv's CUDA op built alone: that it is built and found. What it computes: test_gpu.py."""

import os
import shutil
import subprocess
import sys

import mmcv
import pytest
import torch

from mpvit.errors import UserError
from mpvit.ops import build, mmcv_bridge
from mpvit.ops.msda import cuda

GPU = torch.device('cuda', 0)
needs_cuda_torch = pytest.mark.skipif(
    torch.version.cuda is None, reason='needs a torch that is built for CUDA'
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of extensions."""
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path))
    forget = cuda.built.cache_clear
    forget()
    yield tmp_path
    forget()


@pytest.fixture
def nvcc(tmp_path):
    """A compiler that says which release it is."""

    def make(release):
        path = tmp_path / 'nvcc'
        path.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {release}, V0"\n')
        path.chmod(0o755)
        return str(path)

    return make


def test_one_file_for_each_set_of_versions(cache, monkeypatch):
    path = cuda.library()
    assert path.is_relative_to(cache)
    for version in (torch.__version__, str(torch.version.cuda), mmcv.__version__):
        assert version in str(path)
    monkeypatch.setattr(torch, '__version__', '2.12.0')
    assert cuda.library() != path


@needs_cuda_torch
def test_unavailable_says_why(cache):
    assert cuda.unavailable(torch.device('cpu'), torch.float32) == 'it needs an NVIDIA GPU'
    assert cuda.unavailable(GPU, torch.bfloat16) == 'mmcv has no kernel for bfloat16'
    if mmcv_bridge.compiled_attention() is None:
        assert 'run `python -m mpvit.ops.build`' in cuda.unavailable(GPU, torch.float32)


@needs_cuda_torch
def test_unavailable_on_a_broken_file_and_on_another_gpu(cache, monkeypatch):
    monkeypatch.setattr(mmcv_bridge, 'compiled_attention', lambda: None)
    path = cuda.library()
    path.parent.mkdir(parents=True)
    path.write_bytes(b'no library')
    assert 'does not load' in cuda.unavailable(GPU, torch.float32)
    path.with_name('capabilities.txt').write_text('9.0\n')
    monkeypatch.setattr(cuda, 'built', lambda: object())
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 6))
    reason = cuda.unavailable(GPU, torch.float32)
    assert reason.startswith('it is built for 9.0, not for 8.6')


@pytest.mark.parametrize(
    ('capabilities', 'device', 'runs'),
    [
        ('8.0', (8, 6), True),
        ('8.6', (8, 0), False),
        ('8.0', (9, 0), False),
        ('8.0+PTX', (9, 0), True),
        ('9.0+PTX', (8, 0), False),
        ('7.5;8.0;9.0+PTX', (12, 0), True),
        ('9.0a', (9, 0), True),
        ('', (9, 0), False),
    ],
)
def test_which_gpus_a_build_serves(capabilities, device, runs):
    assert cuda.covers(capabilities, device) == runs


def test_compiler_is_checked_before_anything_is_compiled(nvcc):
    with pytest.raises(UserError, match=r'built without CUDA.*install a CUDA build of torch'):
        build.check_compiler(None, nvcc('13.0'))
    with pytest.raises(UserError, match=r'nvcc is not on the PATH; install the CUDA 13\.0 toolkit'):
        build.check_compiler('13.0', None)
    with pytest.raises(UserError, match=r'is release 12\.4, but torch .* for CUDA 13\.0'):
        build.check_compiler('13.0', nvcc('12.4'))
    with pytest.raises(UserError, match='an unknown release'):
        build.check_compiler('13.0', nvcc('of the future'))
    assert build.check_compiler('13.0', nvcc('13.2')).endswith('nvcc')


def test_mmcv_without_sources(cache, monkeypatch, tmp_path, nvcc):
    monkeypatch.setattr(build, 'check_compiler', lambda *args: nvcc('13.0'))
    monkeypatch.setattr(mmcv_bridge, 'sources', lambda: tmp_path / 'mmcv' / 'ops' / 'csrc')
    with pytest.raises(UserError, match='mmcv at .*mmcv has no sources of its ops'):
        build.build()


def test_which_gpus_are_built_for(monkeypatch):
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '8.9')
    assert build.capabilities() == '8.9'
    monkeypatch.delenv('TORCH_CUDA_ARCH_LIST')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 3)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda i: [(9, 0), (8, 6), (9, 0)][i])
    assert build.capabilities() == '8.6;9.0'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert cuda.covers(build.capabilities(), (8, 9))
    assert cuda.covers(build.capabilities(), (10, 0))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('nvcc') is None, reason='needs nvcc, the CUDA compiler')
@needs_cuda_torch
def test_build_and_load_in_a_later_process_without_a_compiler(cache, root):
    env = {**os.environ, 'TORCH_CUDA_ARCH_LIST': '8.0', 'MAX_JOBS': '2'}
    command = [sys.executable, '-m', 'mpvit.ops.build']
    built = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    assert f'built {cuda.library()} in ' in built.stdout
    assert cuda.built_for() == '8.0'
    code = (
        'from mpvit.ops.msda import cuda; module = cuda.built(); '
        'print(module.ms_deform_attn_forward.__name__, module.ms_deform_attn_backward.__name__)'
    )
    loaded = subprocess.run(
        [sys.executable, '-c', code],
        cwd=root,
        env={**env, 'PATH': ''},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.stdout.split() == ['ms_deform_attn_forward', 'ms_deform_attn_backward'], loaded
