"""Writing checkpoints: whole or not at all, and finite."""

import os
from collections.abc import Callable, Mapping
from typing import IO, Any

from torch import Tensor

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


def check_finite(tensors: Mapping[str, Any]) -> None:
    """Refuse weights that a training cannot go on from; only floating-point tensors are looked at.

    Raises:
        NotSaved: One of them holds an infinity or NaN.
    """
    for name, tensor in tensors.items():
        floats = isinstance(tensor, Tensor) and tensor.is_floating_point()
        if floats and not bool(tensor.isfinite().all()):
            raise NotSaved(f'weights with values that are not finite are not saved ({name})')
