"""The only file that touches mmcv's internals.

mmdet instantiates mmcv's `MultiScaleDeformableAttention`; it and its parameters stay mmcv's.
`install` acts at two seams, and `uninstall` undoes both:

1. The registry's mmcv is built without its compiled extension ``mmcv._ext``, and then neither
   ``mmcv.ops`` nor mmdet can be imported. A stand-in takes its place: it provides the ops our
   models need (`mpvit.ops.fallbacks`); every other op raises an error that names the remedy. A
   compiled extension that loads is never touched.
2. mmcv's slow plain version of deformable attention is replaced by `mpvit.ops.attention`, and so
   is the autograd function for GPUs where mmcv has no compiled op for it to call. The forward
   method of the module is replaced by `mpvit.ops.module.forward`, which computes the same.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from torch import Tensor  # a compiled extension needs torch's libraries loaded first

from mpvit.ops import attention
from mpvit.ops import module as attention_module
from mpvit.ops.fallbacks import PROVIDED

_NAME = 'mmcv._ext'
_ATTENTION = 'mmcv.ops.multi_scale_deform_attn'
_PLAIN = 'multi_scale_deformable_attn_pytorch'
_FUNCTION = 'MultiScaleDeformableAttnFunction'
_MODULE = 'MultiScaleDeformableAttention'
# mmcv says so before it calls its plain version with bfloat16, which here is not plain any more.
_OUTDATED_WARNING = 'MultiScaleDeformableAttnFunction does not support torch.bfloat16'
_REMEDY = (
    'Compile mmcv with its ops (docs/install.md, "Compiled mmcv ops"): FORCE_CUDA=1 pip install '
    '--no-build-isolation --no-deps --force-reinstall --no-binary onedl-mmcv onedl-mmcv'
)


class _SubstituteExt(ModuleType):
    """Stands in for ``mmcv._ext``: provided ops work, any other says what to do when called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith('__'):
            raise AttributeError(name)
        return PROVIDED.get(name) or _missing(name)


def _missing(name: str) -> Callable[..., NoReturn]:
    def op(*args: object, **kwargs: object) -> NoReturn:
        raise RuntimeError(f'mmcv op {name!r} is missing: mmcv has no compiled ops. {_REMEDY}')

    return op


class _Function:
    """Stands in for mmcv's autograd function; unlike it, does not round the locations.

    Args:
        op: Deformable attention without the arguments that only the compiled op needs.
    """

    def __init__(self, op: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
        self._op = op

    def apply(
        self,
        value: Tensor,
        value_spatial_shapes: Tensor,
        value_level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int,
    ) -> Tensor:
        """Deformable attention, with the arguments of mmcv's function."""
        return self._op(value, value_spatial_shapes, sampling_locations, attention_weights)


_originals: list[tuple[Any, str, Any]] = []  # what was replaced: where, its name, itself


def install() -> None:
    """Make ``mmcv.ops`` and mmdet importable, and deformable attention fast.

    Doing it again changes nothing.

    Raises:
        ImportError: mmcv is not installed at all.
    """
    _supply_extension()
    _route_attention()


def uninstall() -> None:
    """Give mmcv back what `install` replaced.

    Modules that already imported the stand-in of the extension keep their reference.
    """
    _restore_attention()
    if is_substituted():
        del sys.modules[_NAME]


def is_substituted() -> bool:
    """Whether ``mmcv._ext`` is our stand-in rather than mmcv's compiled extension."""
    return isinstance(sys.modules.get(_NAME), _SubstituteExt)


def compiled_attention() -> ModuleType | None:
    """The compiled extension of mmcv if it has deformable attention for GPUs."""
    extension = sys.modules.get(_NAME)
    if extension is None or is_substituted() or not hasattr(extension, 'ms_deform_attn_forward'):
        return None
    # compiled without nvcc it has the function, which then raises
    version = getattr(extension, 'get_compiling_cuda_version', lambda: 'not available')()
    return None if version == 'not available' else extension


@contextlib.contextmanager
def stock_attention() -> Iterator[None]:
    """While it lasts, mmcv's own attention: its compiled op, or else its plain version.

    To compare with. Not for use in several threads.
    """
    replaced = bool(_originals)
    _restore_attention()
    module = importlib.import_module(_ATTENTION)
    function = getattr(module, _FUNCTION)
    if compiled_attention() is None:
        setattr(module, _FUNCTION, _Function(getattr(module, _PLAIN)))
    try:
        yield
    finally:
        setattr(module, _FUNCTION, function)
        if replaced:
            _route_attention()


def sources() -> Path:
    """Folder of the C++ and CUDA sources inside the installed mmcv."""
    spec = importlib.util.find_spec('mmcv')
    if spec is None or spec.origin is None:
        raise ImportError('mmcv is not installed; run `pip install onedl-mmcv`')
    return Path(spec.origin).parent / 'ops' / 'csrc'


def version() -> str:
    """Version of the installed mmcv."""
    return importlib.import_module('mmcv').__version__


def _supply_extension() -> None:
    if _NAME in sys.modules:
        return
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError('mmcv is not installed; run `pip install onedl-mmcv`')
    if importlib.util.find_spec(_NAME) is not None:
        try:
            importlib.import_module(_NAME)
            return
        except ImportError as error:
            warnings.warn(
                f'the compiled ops of mmcv do not load ({error}); using plain PyTorch instead. '
                f'They were built for another torch. {_REMEDY}',
                stacklevel=3,
            )
    module = _SubstituteExt(_NAME)
    # mmengine looks for the extension with find_spec, which wants a spec on a loaded module.
    module.__spec__ = ModuleSpec(_NAME, None)
    sys.modules[_NAME] = module


def _route_attention() -> None:
    """Lead mmcv's attention to ours, but for what its compiled op serves."""
    if _originals:
        return
    module = importlib.import_module(_ATTENTION)
    _replace(module, _PLAIN, attention.ms_deform_attn)
    _replace(getattr(module, _MODULE), 'forward', attention_module.forward)
    if compiled_attention() is None or os.environ.get(attention.VARIABLE):
        _replace(module, _FUNCTION, _Function(attention.ms_deform_attn))
    warnings.filterwarnings('ignore', message=_OUTDATED_WARNING)


def _replace(owner: Any, name: str, replacement: Any) -> None:
    _originals.append((owner, name, getattr(owner, name)))
    setattr(owner, name, replacement)


def _restore_attention() -> None:
    while _originals:
        setattr(*_originals.pop())
    outdated = [f for f in warnings.filters if f[1] and f[1].pattern == _OUTDATED_WARNING]  # type: ignore[union-attr]
    for entry in outdated:
        warnings.filters.remove(entry)  # type: ignore[attr-defined]
