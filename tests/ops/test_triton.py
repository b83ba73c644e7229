"""The Triton kernels without a GPU: interpreted. Compiled: test_triton_compiled.py."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('triton', reason='needs Triton, which comes with torch for CUDA')

from mpvit.errors import UserError
from mpvit.ops.msda import triton as backend

CPU = torch.device('cpu')


@pytest.mark.parametrize('marked', ['not slow', pytest.param('slow', marks=pytest.mark.slow)])
def test_kernels_equal_the_reference_in_the_interpreter(root, marked):
    """In a process of its own: Triton asks for the interpreter when it is imported."""
    tests = Path(__file__).with_name('interpreted_triton.py')
    command = [sys.executable, '-m', 'pytest', '-q', '--noconftest', '-p', 'no:cacheprovider']
    result = subprocess.run(
        [*command, '-m', marked, str(tests)],
        cwd=root,
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert 'skipped' not in result.stdout


def test_what_it_cannot_serve():
    assert backend.unavailable(CPU, torch.float32) == 'it needs a GPU'
    assert backend.unavailable(torch.device('cuda', 0), torch.bfloat16) is None
    assert 'too coarse for float64' in backend.unavailable(torch.device('cuda', 0), torch.float64)


def test_sizes_beyond_32_bits_are_refused():
    """The largest image that is counted in 32 bits, and one more position; nothing is allocated."""
    positions = 2**23 - 2**8  # of 8 heads of 32 channels
    value = torch.empty(3, positions, 8, 32, device='meta')
    places = torch.empty(3, 300, 8, 4, 4, 2, device='meta')
    sizes = backend._sizes(value, None, places)
    assert sizes['positions'] == positions
    assert value.numel() > 2**32  # images are counted in 64 bits
    with pytest.raises(UserError, match='use smaller images or another backend'):
        backend._sizes(torch.empty(1, positions + 1, 8, 32, device='meta'), None, places)
    with pytest.raises(UserError, match='numbers an image'):
        backend._sizes(value, None, torch.empty(1, 2**23, 8, 4, 4, 2, device='meta'))


def test_native_atomics_need_a_gpu_that_has_them(monkeypatch):
    value = torch.empty(1, device='meta', dtype=torch.bfloat16)
    assert backend._summed_in(value) is torch.float32
    monkeypatch.setenv(backend.ATOMICS, 'native')
    assert backend._summed_in(value) is torch.bfloat16
    monkeypatch.setenv(backend.ATOMICS, 'fast')
    with pytest.raises(UserError, match='MPVIT_MSDA_ATOMICS=fast'):
        backend._summed_in(value)
    monkeypatch.setenv(backend.ATOMICS, 'native')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 6))
    on_gpu = SimpleNamespace(is_cuda=True, device=torch.device('cuda', 0), dtype=torch.bfloat16)
    with pytest.raises(UserError, match='compute capability 9.0'):
        backend._summed_in(on_gpu)
