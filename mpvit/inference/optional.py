"""Packages that only some uses need."""

import importlib
from types import ModuleType

from mpvit.errors import UserError


def optional(package: str, purpose: str) -> ModuleType:
    """Import a package when it is needed.

    Args:
        package: Its name.
        purpose: What needs it, in the plural, for the error.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f'{purpose} need {package} ({error}); run `pip install {package}`'
        ) from error
