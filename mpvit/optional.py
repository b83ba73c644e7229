"""Packages that only some uses need."""

import importlib
from types import ModuleType

from mpvit.errors import UserError


def optional(package: str, purpose: str, extra: str | None = None) -> ModuleType:
    """Import a package when it is needed.

    Args:
        package: Its name.
        purpose: What needs it, in the plural, for the error.
        extra: The extra of mpvit that installs it; None for one that mpvit itself requires.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        wanted = f"'mpvit[{extra}]'" if extra else 'mpvit'
        raise UserError(
            f'{purpose} need {package} ({error}); run `pip install {wanted}`'
        ) from error
