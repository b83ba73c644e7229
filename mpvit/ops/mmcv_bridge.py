"""The only file that touches mmcv's internals.

mmdet instantiates mmcv's `MultiScaleDeformableAttention`; it and its parameters stay mmcv's.
`install` acts at two seams:

1. The registry's mmcv is built without its compiled extension ``mmcv._ext``, and then neither
   ``mmcv.ops`` nor mmdet can be imported. A stand-in takes its place: it provides the ops our
   models need (`mpvit.ops.fallbacks`); every other op raises an error that names the remedy. A
   compiled extension that loads is never touched.
2. The forward method of the module is replaced by `mpvit.ops.msda.module.forward`, which computes
   the same by `mpvit.ops.msda.op`; so is mmcv's slow plain version of the operator.
"""

import contextlib
import functools
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import mmcv
from torch import Tensor  # a compiled extension needs torch's libraries loaded first

from mpvit.ops.fallbacks import PROVIDED
from mpvit.ops.msda import module as attention_module
from mpvit.ops.msda import op as attention

_NAME = 'mmcv._ext'
_ATTENTION = 'mmcv.ops.multi_scale_deform_attn'
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


def install() -> None:
    """Make ``mmcv.ops`` and mmdet importable, and deformable attention fast.

    Doing it again changes nothing.
    """
    _supply_extension()
    _stock()
    _set(attention.ms_deform_attn, attention_module.forward)


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
    plain, forward = _stock()
    module: Any = importlib.import_module(_ATTENTION)
    function = module.MultiScaleDeformableAttnFunction
    if compiled_attention() is None:
        module.MultiScaleDeformableAttnFunction = SimpleNamespace(
            apply=lambda value, shapes, starts, *rest: plain(value, shapes, *rest[:-1])
        )
    _set(plain, _on_tensors(forward))
    try:
        yield
    finally:
        _set(attention.ms_deform_attn, attention_module.forward)
        module.MultiScaleDeformableAttnFunction = function


@functools.cache
def _stock() -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The plain operator and module's method of mmcv, remembered from before `_set` is called."""
    module = importlib.import_module(_ATTENTION)
    return module.multi_scale_deformable_attn_pytorch, module.MultiScaleDeformableAttention.forward


def _on_tensors(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method of mmcv for callers that give the sizes of the levels as numbers."""

    @functools.wraps(forward)
    def run(self: Any, query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if kwargs.get('spatial_shapes') is not None:
            kwargs['spatial_shapes'] = attention.level_sizes(kwargs['spatial_shapes'], query.device)
        return forward(self, query, *args, **kwargs)

    return run


def _set(plain: Callable[..., Tensor], forward: Callable[..., Tensor]) -> None:
    module: Any = importlib.import_module(_ATTENTION)
    module.multi_scale_deformable_attn_pytorch = plain
    module.MultiScaleDeformableAttention.forward = forward


def sources() -> Path:
    """Folder of the C++ and CUDA sources inside the installed mmcv."""
    return Path(mmcv.__file__).parent / 'ops' / 'csrc'


def _supply_extension() -> None:
    if _NAME in sys.modules:
        return
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
