"""Files and folders that are written: nothing is written over.

Standard library only, as all of `mpvit.arguments`.
"""

import os
from pathlib import Path

from mpvit.errors import UserError

_PICTURES = ('.png', '.jpg', '.jpeg', '.webp', '.tif', '.tiff', '.svg', '.pdf')


def check_work_dir(path: str) -> None:
    """Refuse a file in the place of the folder for outputs.

    Args:
        path: The folder, which need not exist.

    Raises:
        UserError: It is a file.
    """
    if Path(path).exists() and not Path(path).is_dir():
        raise UserError(f'work folder {path} is a file; choose another --work-dir')


def check_out(path: str) -> None:
    """Refuse a file for raw detections that is named like something else than a pickle.

    Args:
        path: The file to write.

    Raises:
        UserError: It has another suffix.
    """
    if Path(path).suffix not in ('.pkl', '.pickle'):
        raise UserError(f'--out {path}: the file is a pickle; name it .pkl')


def check_target(path: str | os.PathLike[str]) -> None:
    """Refuse a file or folder to write that exists or whose parent does not.

    Args:
        path: What to write.

    Raises:
        UserError: It cannot be written or would be written over.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f'{path} exists already; choose another name')
    if not path.parent.is_dir():
        raise UserError(f'{path}: there is no folder {path.parent}')


def check_figure(path: str | os.PathLike[str]) -> None:
    """Refuse a picture to write that exists or is of a type that cannot be drawn.

    Args:
        path: What to write; its folder need not exist.

    Raises:
        UserError: It would be written over, or has another suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in _PICTURES:
        raise UserError(f'{path}: a picture ends in {", ".join(_PICTURES[:-1])} or {_PICTURES[-1]}')
    if path.exists():
        raise UserError(f'{path} exists already; choose another name')


def check_picture(path: str | os.PathLike[str]) -> None:
    """Refuse a picture as `check_figure` does, and one in a folder that is not there.

    Args:
        path: The file to write.

    Raises:
        UserError: See `check_figure` and `check_target`.
    """
    check_figure(path)
    check_target(path)


def check_out_dir(path: str | os.PathLike[str]) -> None:
    """Refuse a folder for results that holds something.

    Args:
        path: The folder, which need not exist.

    Raises:
        UserError: It is a file or not empty.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UserError(f'--out {path} is a file; name a new folder')
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f'--out {path} is not empty; name a new folder')


def check_sheets(path: str | os.PathLike[str]) -> None:
    """Refuse a file in the place of the folder for contact sheets.

    Args:
        path: The folder, which need not exist.

    Raises:
        UserError: It is a file.
    """
    if Path(path).is_file():
        raise UserError(f'{path} is a file; name a folder with --out')
