"""Writing checkpoints: whole or not at all, and finite."""

import math
import os
from collections.abc import Callable, Mapping
from typing import IO, Any

from torch import Tensor

from mpvit.checkpoints.reading import all_finite
from mpvit.files.writing import NotWritten, reason, whole_file

NotSaved = NotWritten


def write_durably(path: str | os.PathLike[str], write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside its place, flush it to the disk and move it there in one step.

    ``write`` writes the content into an open file.

    Raises:
        NotSaved: The disk is full, or writing failed otherwise.
    """
    with whole_file(path, durable=True) as beside, beside.open('wb') as file:
        try:
            write(file)
        except RuntimeError as error:  # torch's writer hides an OSError in it
            raise OSError(reason(error)) from error


def check_finite(tensors: Mapping[str, Any], what: str = 'weights') -> None:
    """Refuse what a training cannot go on from; only floating-point numbers are looked at.

    Args:
        tensors: Numbers and tensors by name.
        what: What they are, for the error.

    Raises:
        NotSaved: One of them holds an infinity or NaN.
    """
    for name, value in tensors.items():
        if not _is_finite(value):
            raise NotSaved(f'{what} with values that are not finite are not saved ({name})')


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, Tensor) or all_finite(value)
