"""Files and folders that are read.

Standard library only, as all of `mpvit.arguments`.
"""

import os
from pathlib import Path

from mpvit.errors import UserError


def check_checkpoint(path: str) -> None:
    """Refuse a checkpoint file that is not there.

    Args:
        path: File or URL; a URL is not looked up.

    Raises:
        UserError: There is no such file.
    """
    if '://' not in path and not Path(path).expanduser().is_file():
        raise UserError(f'checkpoint {path} not found')


def check_resume(path: str) -> None:
    """Refuse a checkpoint to resume from that is not there.

    Args:
        path: As for `check_checkpoint`, or 'auto' for the newest in the work folder.

    Raises:
        UserError: There is no such file.
    """
    if path != 'auto':
        check_checkpoint(path)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a folder that is not there.

    Args:
        path: The folder.

    Raises:
        UserError: There is no such folder.
    """
    path = Path(path)
    if path.is_file():
        raise UserError(f'{path} is a file; name the folder of the dataset')
    if not path.is_dir():
        raise UserError(f'folder {path} not found')


def check_file(path: str | os.PathLike[str], what: str, hint: str = '') -> None:
    """Refuse a file that is not there.

    Args:
        path: The file.
        what: What it should be.
        hint: What to do, as the end of a sentence.

    Raises:
        UserError: There is no such file.
    """
    if not Path(path).is_file():
        raise UserError(f'{what} {path} not found{hint}')
