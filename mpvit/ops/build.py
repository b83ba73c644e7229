"""Build mmcv's CUDA op of deformable attention alone: ``python -m mpvit.ops.build``.

All of mmcv takes about half an hour to compile; this one op takes minutes. Its sources are those
inside the installed mmcv, only the binding (binding.cpp) is ours. The result goes to PyTorch's
cache of extensions, from where `mpvit.ops.msda.cuda` loads it in every later process, without a
compiler. ``TORCH_CUDA_ARCH_LIST`` chooses the GPUs to build for, ``MAX_JOBS`` the processes.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from mpvit.errors import UserError
from mpvit.ops import mmcv_bridge
from mpvit.ops.msda import cuda

_KERNELS = 'pytorch/cuda/ms_deform_attn_cuda.cu'
_WITHOUT_GPU = '7.5;8.0;9.0+PTX'  # from Turing on: the later ones run the code of their generation


def build() -> Path:
    """Compile the op and load it once; the file of the extension.

    Raises:
        UserError: The compiler, mmcv's sources or a fitting PyTorch is missing, or it fails.
    """
    nvcc = check_compiler(torch.version.cuda, shutil.which('nvcc'))
    sources = mmcv_bridge.sources()
    if not (sources / _KERNELS).exists():
        raise UserError(
            f'mmcv at {sources.parents[1]} has no sources of its ops ({_KERNELS}); install a mmcv '
            'that ships them: pip install onedl-mmcv'
        )
    target = cuda.library()
    print(f'compiling {sources / _KERNELS}')
    print(f'with {nvcc} for compute capability {capabilities()}; this takes minutes')
    started = time.monotonic()
    _compile(sources, target, toolkit(nvcc))
    target.with_name('capabilities.txt').write_text(capabilities() + '\n')
    cuda.built.cache_clear()
    if cuda.built() is None:
        raise UserError(f'the compiler left no {target}; remove its folder and try again')
    print(f'built {target} in {time.monotonic() - started:.0f} s')
    return target


def check_compiler(torch_cuda: str | None, nvcc: str | None) -> str:
    """The path of nvcc, if it fits the CUDA version of PyTorch.

    Raises:
        UserError: It does not fit, or one of the two is missing.
    """
    if torch_cuda is None:
        raise UserError(
            f'torch {torch.__version__} is built without CUDA; install a CUDA build of torch first'
        )
    if nvcc is None:
        raise UserError(
            f'nvcc is not on the PATH; install the CUDA {torch_cuda} toolkit, or leave it: without '
            'this op Triton is used on GPUs'
        )
    printed = subprocess.run([nvcc, '--version'], capture_output=True, text=True, check=True).stdout
    release = re.search(r'release (\d+)\.(\d+)', printed)
    if release is None or release[1] != torch_cuda.split('.')[0]:
        found = release[0] if release else 'an unknown release'
        raise UserError(
            f'{nvcc} is {found}, but torch {torch.__version__} is built for CUDA {torch_cuda}; put '
            'the nvcc of the same major version first on the PATH'
        )
    return nvcc


def capabilities() -> str:
    """What to build for: ``TORCH_CUDA_ARCH_LIST``, the GPUs that are visible, or common ones."""
    wanted = os.environ.get('TORCH_CUDA_ARCH_LIST')
    if wanted:
        return wanted
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    found = sorted({torch.cuda.get_device_capability(i) for i in devices})
    return ';'.join(f'{major}.{minor}' for major, minor in found) or _WITHOUT_GPU


def toolkit(nvcc: str) -> Path:
    """Folder of the CUDA toolkit, asked of nvcc itself: what is on the PATH may be a wrapper."""
    steps = subprocess.run(
        [nvcc, '--dryrun', '-x', 'cu', os.devnull], capture_output=True, text=True, check=False
    ).stderr
    top = re.search(r'TOP=(.+)', steps)
    return Path(top[1] if top else Path(nvcc).parent.parent).resolve()


def _compile(sources: Path, target: Path, toolkit: Path) -> None:
    from torch.utils import cpp_extension  # looks for CUDA when imported

    if not cpp_extension.is_ninja_available():
        raise UserError('ninja is not installed; run: pip install ninja')
    target.parent.mkdir(parents=True, exist_ok=True)
    common = ['-O2', '-DMMCV_WITH_CUDA']  # the macro turns mmcv's kernels on
    halves = ['OPERATORS', 'CONVERSIONS', '2_OPERATORS']  # left to PyTorch's own half type
    os.environ['TORCH_CUDA_ARCH_LIST'] = capabilities()
    try:
        cpp_extension.load(
            cuda.NAME,
            [str(Path(__file__).with_name('binding.cpp')), str(sources / _KERNELS)],
            extra_include_paths=[
                str(sources / 'common'),
                str(sources / 'common' / 'cuda'),
                *_headers(toolkit),
            ],
            extra_cflags=common,
            extra_cuda_cflags=[*common, *(f'-D__CUDA_NO_HALF_{name}__' for name in halves)],
            extra_ldflags=[f'-L{toolkit / name}' for name in ('lib64', 'lib')],
            build_directory=str(target.parent),
            with_cuda=True,
        )
    except RuntimeError as error:
        print(error, file=sys.stderr)
        raise UserError(
            'the compiler failed, see its messages above; a common cause is a host compiler '
            'newer than nvcc supports (name an older one in CC and CXX)'
        ) from error


def _headers(toolkit: Path) -> list[str]:
    """Folders of the CUDA headers that came with PyTorch, where the toolkit lacks them."""
    if (toolkit / 'include' / 'cusparse.h').exists():
        return []
    spec = importlib.util.find_spec('nvidia')
    places = spec.submodule_search_locations if spec else None
    return [str(folder) for place in places or () for folder in Path(place).glob('*/include')]


if __name__ == '__main__':
    try:
        build()
    except UserError as error:
        sys.exit(f'error: {error}')
