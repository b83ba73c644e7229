"""Files and folders that a user names: those to read are there, those to write are new.

Every function that checks a path returns it with the home folder in place of ``~`` and otherwise as
it was given, so that it can be the type of an argument.
"""

import os
import re
from pathlib import Path
from typing import Any, TypeVar

from mpvit.errors import UserError
from mpvit.files.writing import check_writable

AnyPath = TypeVar('AnyPath', bound=str | os.PathLike[str])
#: Suffixes of files that are taken for images, and for videos, where a folder is searched. A file
#: that is named itself may be called anything.
IMAGES = frozenset('.avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .ppm'.split())
IMAGES |= {'.tif', '.tiff', '.webp'}
VIDEOS = frozenset('.avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .ogv .webm .wmv'.split())
_SCHEME = re.compile(r'[\w+.-]+(:[\w+.-]+)?://')
_DRAWN = ('.png', '.jpg', '.jpeg', '.webp', '.tif', '.tiff', '.svg', '.pdf')  # by matplotlib


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path begins with a scheme: ``s3://bucket/x``, ``cluster:s3://x``.

    A folder may be called ``x:`` as well, and file names may come from strangers.
    """
    return _SCHEME.match(os.fspath(path)) is not None


def is_image(name: str | os.PathLike[str]) -> bool:
    """Whether a file is named like an image."""
    return Path(name).suffix.lower() in IMAGES


def is_video(name: str | os.PathLike[str]) -> bool:
    """Whether a file is named like a video."""
    return Path(name).suffix.lower() in VIDEOS


def expanded(path: AnyPath) -> AnyPath:
    """A path with the home folder in place of ``~``; a URL as it is.

    Raises:
        UserError: It is empty, which Python would take for the current folder.
    """
    if not str(path):
        raise UserError('a path is empty; name a file or a folder')
    kind: Any = type(path)
    return kind(os.path.expanduser(str(path)))


def newest_config(folder: Path, *, test: bool = False) -> Path | None:
    """The newest config that a run wrote into its work folder, where its checkpoints are too.

    Args:
        folder: The folder.
        test: That of an evaluation, ``*_test.py``, rather than of the training.
    """
    files = [p for p in folder.glob('*.py') if p.stem.endswith('_test') == test and p.is_file()]
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def existing_file(path: AnyPath, what: str = 'file', hint: str = '') -> AnyPath:
    """A file to read.

    Args:
        path: The file.
        what: What it should be.
        hint: What to do where it is not there, as the end of a sentence.

    Raises:
        UserError: There is no such file.
    """
    path = expanded(path)
    if not Path(path).is_file():
        raise UserError(f'{what} {path} not found{hint}')
    return path


def existing_folder(path: AnyPath, what: str = 'folder') -> AnyPath:
    """A folder to read, such as that of a dataset.

    Args:
        path: The folder.
        what: What it should be.

    Raises:
        UserError: There is no such folder.
    """
    path = expanded(path)
    if Path(path).is_file():
        raise UserError(f'{path} is a file; name the {what}')
    if not Path(path).is_dir():
        raise UserError(f'{what} {path} not found')
    return path


def existing_run(path: AnyPath) -> AnyPath:
    """The work folder of a run; see `existing_folder`."""
    return existing_folder(path, 'work folder of a run')


def existing_checkpoint(path: str) -> str:
    """A checkpoint: a file; a URL, which is not looked up; or the best one of a work folder.

    Raises:
        UserError: There is no such file, or the folder has no checkpoint.
    """
    if '://' in path:
        return path
    folder = Path(expanded(path))
    if not folder.is_dir():
        return existing_file(path, 'checkpoint')
    found = best_checkpoint(folder)
    if found is None:
        raise UserError(f'{path} is a folder without checkpoints; name a checkpoint')
    return str(found)


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of a work folder with the best evaluation, or else the newest one."""
    for pattern in ('best_*.pth', 'epoch_*.pth', 'iter_*.pth'):
        found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
        if found:
            return found[-1]
    return None


def work_dir(path: str) -> str:
    """A folder for outputs, which need not exist.

    Raises:
        UserError: It is a file, or a link to nothing.
    """
    path = expanded(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UserError(f'work folder {path} is no folder; name another one')
    return path


def output_folder(path: str) -> str:
    """A folder for outputs, as `work_dir`, that can be written; it is not made yet.

    Raises:
        UserError: It is a file or cannot be written.
    """
    path = work_dir(path)
    check_writable(path, folder=True)
    return path


def new_file(path: AnyPath) -> AnyPath:
    """A file or folder to write.

    Raises:
        UserError: It exists, its parent does not, or it cannot be written.
    """
    path = expanded(path)
    if os.path.lexists(path):
        raise UserError(f'{path} exists already; choose another name')
    if not os.path.isdir(Path(path).parent):
        raise UserError(f'{path}: there is no folder {Path(path).parent}')
    check_writable(path)
    return path


def new_folder(path: AnyPath) -> AnyPath:
    """A folder for results, which need not exist.

    Raises:
        UserError: It is a file or not empty, or cannot be written.
    """
    path = expanded(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UserError(f'--out {path} is no folder; name a new one')
    if os.path.isdir(path) and any(Path(path).iterdir()):
        raise UserError(f'--out {path} is not empty; name a new folder')
    check_writable(path, folder=True)
    return path


def new_picture(path: AnyPath) -> AnyPath:
    """A picture to write; its folder need not exist.

    Raises:
        UserError: It exists, is of a type that cannot be drawn, or cannot be written.
    """
    path = expanded(path)
    if Path(path).suffix.lower() not in _DRAWN:
        raise UserError(f'{path}: a picture ends in {", ".join(_DRAWN[:-1])} or {_DRAWN[-1]}')
    if os.path.lexists(path):
        raise UserError(f'{path} exists already; choose another name')
    check_writable(path)
    return path


def pickle_file(path: str) -> str:
    """A file for raw detections.

    Raises:
        UserError: It is named like something else than a pickle, or cannot be written.
    """
    path = expanded(path)
    if Path(path).suffix not in ('.pkl', '.pickle'):
        raise UserError(f'--out {path}: the file is a pickle; name it .pkl')
    check_writable(path)
    return path
