"""Imports that wait until they are used, for packages that mmdet imports and hardly anyone needs.

mmdet imports imgaug for one transform of lane detection, imagecorruptions for another transform and
scikit-learn for two models. Within `deferred`, such packages are not imported; what is taken from
them is a stand-in that imports the real thing when it is called or looked into.
Afterwards nothing of this is left in `sys.modules`: whoever imports the package gets it.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


@contextmanager
def deferred(*packages: str) -> Iterator[None]:
    """Let imports of packages within the block wait.

    A package that is loaded already, or not installed, is left alone. A stand-in cannot be
    derived from; a class statement that tries fails at once.

    Args:
        *packages: Full names; submodules are included. The parent of a name with a dot is
            imported.
    """
    wanted = [name for name in packages if name not in sys.modules and _installed(name)]
    finder = _Finder(wanted)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        finder.withdraw()


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # of the parent package
        return False


class _Finder(MetaPathFinder, Loader):
    """Answers imports with stand-ins until it is withdrawn."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages
        self.modules: list[_Module] = []

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Claim the packages and what is in them."""
        if any(f'{name}.'.startswith(f'{package}.') for package in self.packages):
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> '_Module':
        """Make a stand-in."""
        module = _Module(spec.name, self)
        self.modules.append(module)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to execute."""

    def withdraw(self) -> None:
        """Take the stand-ins out of the way of the real modules; a second time does nothing."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for module in self.modules:
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]
            parent, _, name = module.__name__.rpartition('.')
            if vars(sys.modules.get(parent, object)).get(name) is module:
                delattr(sys.modules[parent], name)


class _Module(ModuleType):
    """Stands in for a module; what is taken from it stands in for the real one's attributes."""

    def __init__(self, name: str, finder: _Finder) -> None:
        super().__init__(name)
        self.__dict__['_finder'] = finder

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(f'{self.__name__} is not imported yet: no {name}')
        return _Attribute(self, name)


class _Attribute:
    """Stands in for a function, class or submodule."""

    def __init__(self, module: _Module, name: str) -> None:
        self.__dict__.update(_module=module, _name=name)

    def _real(self) -> Any:
        self._module._finder.withdraw()  # it is used while others are still importing
        return getattr(importlib.import_module(self._module.__name__), self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real(), name, value)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._real())
