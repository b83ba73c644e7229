"""The only file that touches mmcv's internals: supplies ``mmcv._ext`` where it is missing.

The registry's mmcv is built without its compiled extension, and then neither ``mmcv.ops`` nor
mmdet can be imported. `install` puts a module in its place that provides the ops our models
need (`mpvit.ops.fallbacks`); every other op raises an error that names the remedy. A compiled
extension that loads is never touched.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch  # noqa: F401  (a compiled extension needs torch's libraries loaded first)

from mpvit.ops.fallbacks import PROVIDED

_NAME = 'mmcv._ext'
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
    """Make ``mmcv.ops`` and mmdet importable; does nothing where mmcv is complete.

    Raises:
        ImportError: mmcv is not installed at all.
    """
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
                stacklevel=2,
            )
    module = _SubstituteExt(_NAME)
    # mmengine looks for the extension with find_spec, which wants a spec on a loaded module.
    module.__spec__ = ModuleSpec(_NAME, None)
    sys.modules[_NAME] = module


def is_substituted() -> bool:
    """Whether ``mmcv._ext`` is our stand-in rather than mmcv's compiled extension."""
    return isinstance(sys.modules.get(_NAME), _SubstituteExt)


def uninstall() -> None:
    """Take the stand-in away again; modules that already imported it keep their reference."""
    if is_substituted():
        del sys.modules[_NAME]
