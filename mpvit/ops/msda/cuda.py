"""mmcv's own CUDA kernels of deformable attention, as a backend of `mpvit.ops.msda.op`.

They come from mmcv's complete extension where it is installed, otherwise from the op built alone
(`mpvit.ops.build`). The kernels have one dtype for all their inputs. float16 values are therefore
computed in float32: sampling locations rounded to float16 would be off by up to 0.04 pixels on a
level 167 wide.
"""

import functools
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mmcv
import torch
from torch import Tensor

from mpvit.ops import mmcv_bridge
from mpvit.ops.msda.reference import laid_out

NAME = 'mpvit_msda'  # of the extension module
_COMPUTED_IN = {
    torch.float16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}


def forward(*inputs: Tensor) -> Tensor:
    """Output in the dtype of the kernel."""
    laid = laid_out(_COMPUTED_IN[inputs[0].dtype], *inputs)
    return _extension().ms_deform_attn_forward(*laid, len(laid[0]))


def backward(grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of value, locations and weights, in the dtype of the kernel."""
    laid = laid_out(_COMPUTED_IN[inputs[0].dtype], *inputs)
    value, _, _, locations, weights = laid
    grads = tuple(torch.zeros_like(t) for t in (value, locations, weights))
    grad_output = grad_output.to(value.dtype).contiguous()
    _extension().ms_deform_attn_backward(*laid, grad_output, *grads, len(value))
    return grads


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why it cannot serve values of this dtype on this device, or ``None`` if it can."""
    if device.type != 'cuda' or torch.version.cuda is None:
        return 'it needs an NVIDIA GPU'
    if dtype not in _COMPUTED_IN:
        return f'mmcv has no kernel for {str(dtype).removeprefix("torch.")}'
    try:
        extension = _extension()
    except (ImportError, OSError) as error:
        return f'{library()} does not load ({error})'
    if extension is None:
        return 'it is not built; run `python -m mpvit.ops.build`'
    capability = torch.cuda.get_device_capability(device)
    if not is_mmcvs() and not covers(built_for(), capability):
        return (
            f'it is built for {built_for()}, not for {".".join(map(str, capability))} of this '
            'GPU; run `python -m mpvit.ops.build`'
        )
    return None


def is_mmcvs() -> bool:
    """Whether the kernels are those of mmcv's complete extension."""
    return mmcv_bridge.compiled_attention() is not None


def library() -> Path:
    """Where the op built alone lies, or will lie: one file for each set of versions it depends on.

    The folder is that of all PyTorch extensions, ``TORCH_EXTENSIONS_DIR`` or a user cache.
    """
    from torch.utils import cpp_extension  # imports setuptools

    root = os.environ.get('TORCH_EXTENSIONS_DIR') or cpp_extension.get_default_build_root()
    python = sys.implementation.cache_tag
    versions = f'torch-{torch.__version__}-cuda-{torch.version.cuda}-mmcv-{mmcv.__version__}'
    return Path(root) / NAME / f'{python}-{versions}' / f'{NAME}.so'


def built_for() -> str:
    """Compute capabilities of the op built alone, as in ``TORCH_CUDA_ARCH_LIST``."""
    record = library().with_name('capabilities.txt')
    return record.read_text().strip() if record.exists() else ''


def covers(capabilities: str, device: tuple[int, int]) -> bool:
    """Whether code for these capabilities runs on a device.

    Machine code runs on later minor versions of its generation, PTX on every later device.
    Capabilities are as in ``TORCH_CUDA_ARCH_LIST``, such as ``'8.0;9.0+PTX'``.
    """
    found = re.findall(r'(\d+)\.(\d+)a?(\+PTX)?', capabilities)
    codes = [((int(major), int(minor)), ptx) for major, minor, ptx in found]
    return any(code <= device and (ptx or code[0] == device[0]) for code, ptx in codes)


def _extension() -> Any:
    """The module of the kernels; None where `unavailable` says that it is not built."""
    return mmcv_bridge.compiled_attention() or built()


@functools.lru_cache
def built() -> ModuleType | None:
    """The op built alone, if it is there."""
    path = library()
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
