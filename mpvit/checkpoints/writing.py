"""Writing files so that a name never stands for half a file."""

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from mpvit.errors import UserError

TEMPORARY = '.tmp'


class NotSaved(UserError):
    """A checkpoint was not written, and what was there before is as it was; says why."""


def write_durably(path: str | os.PathLike[str], write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside its place, flush it to the disk and move it there in one step.

    Killed at any moment, the place holds the old file or the new one, and perhaps a file beside it
    that ends in ``.tmp``. ``write`` writes the content into an open file.

    Raises:
        NotSaved: The disk is full, or writing failed otherwise.
    """
    path = Path(path)
    beside = path.with_name(path.name + TEMPORARY)
    try:
        with beside.open('wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch's writer hides the former in the latter
        _remove(beside)
        raise NotSaved(f'{path} cannot be written ({_reason(error)})') from error
    except BaseException:
        _remove(beside)
        raise


def check_finite(tensors: Mapping[str, Any]) -> None:
    """Refuse weights that a training cannot go on from; only floating-point tensors are looked at.

    Raises:
        NotSaved: One of them holds an infinity or NaN.
    """
    for name, tensor in tensors.items():
        floats = isinstance(tensor, Tensor) and tensor.is_floating_point()
        if floats and not bool(tensor.isfinite().all()):
            raise NotSaved(f'weights with values that are not finite are not saved ({name})')


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems without this
            raise
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the folder itself is gone; the error that led here says more
        pass


def _reason(error: BaseException) -> str:
    """What the operating system said, from under the errors that followed from it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__
