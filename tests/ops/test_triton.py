"""The Triton kernels without a GPU: interpreted, and compiled for one. On a GPU: test_gpu.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('triton', reason='needs Triton, which comes with torch for CUDA')

from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mpvit.ops.msda import triton as backend

CPU = torch.device('cpu')


def test_kernels_equal_the_reference_in_the_interpreter(root):
    """In a process of its own: Triton asks for the interpreter when it is imported."""
    tests = Path(__file__).with_name('interpreted_triton.py')
    command = [sys.executable, '-m', 'pytest', '-q', '--noconftest', '-p', 'no:cacheprovider']
    result = subprocess.run(
        [*command, str(tests)],
        cwd=root,
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert 'skipped' not in result.stdout


@pytest.mark.parametrize('kernel', ['_forward_kernel', '_backward_kernel'])
@pytest.mark.parametrize('dtype', ['fp32', 'bf16'])
def test_kernels_compile_for_a_gpu(kernel, dtype, monkeypatch, tmp_path):
    """To machine code of compute capability 8.0, by the assembler that comes with Triton."""
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    function = getattr(backend, kernel)
    sizes = dict(CHANNELS=27, LEVELS=4, POINTS=4, BLOCK=32, ROWS=16)
    types = dict.fromkeys(('rows', 'positions', 'queries', 'heads'), 'i32')
    types |= dict.fromkeys(('shapes', 'starts'), '*i64')
    types |= dict.fromkeys(('locations', 'grad_locations', 'grad_value'), '*fp32')
    names = function.arg_names
    source = ASTSource(
        fn=function,
        signature={n: 'constexpr' if n in sizes else types.get(n, f'*{dtype}') for n in names},
        constexprs={(names.index(name),): size for name, size in sizes.items()},
    )
    compiled = compile_kernel(source, target=GPUTarget('cuda', 80, 32))
    assert compiled.asm['cubin']
    assert ('atom' in compiled.asm['ptx']) == (kernel == '_backward_kernel')


def test_what_it_cannot_serve():
    assert backend.unavailable(CPU, torch.float32) == 'it needs a GPU'
    assert backend.unavailable(torch.device('cuda', 0), torch.bfloat16) is None
    assert 'too coarse for float64' in backend.unavailable(torch.device('cuda', 0), torch.float64)
