"""Results are whole or not there: written beside their place and moved there in one step.

Whatever ends the program while it writes - an error, a full disk, a signal - what was in the place
before is as it was. A kill leaves what was unfinished beside it, in a hidden folder.
"""

import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mpvit.errors import UserError

#: How the name of a folder begins that holds what is being written.
UNFINISHED = '.mpvit-'
AnyPath = str | os.PathLike[str]


class NotWritten(UserError):
    """A file or folder was not written, and what was there before is as it was; says why."""


def check_writable(target: AnyPath, *, folder: bool = False) -> None:
    """Make sure, before the work for it begins, that a file or folder can be written.

    It is tried, since rights do not tell all: a folder is made, and removed, in the nearest folder
    above that exists.

    Args:
        target: What will be written; folders above it need not exist.
        folder: It is a folder, which may exist.

    Raises:
        NotWritten: It cannot be written.
    """
    target = Path(target)
    with _explained(target):
        _check_kind(target, folder)
        above = [target, *target.parents] if folder else target.parents
        place = next(path for path in above if os.path.lexists(path))
        for name in target.relative_to(place).parts:
            with suppress(FileNotFoundError):
                os.lstat(place / name)  # says if the name is too long
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=place):
            pass


@contextmanager
def whole_file(target: AnyPath, *, new: bool = False, durable: bool = False) -> Iterator[Path]:
    """A path to write a file to, which moves to ``target`` when the block ends.

    It has the name of ``target`` in a hidden folder beside it. If the block raises, the folder is
    removed.

    Args:
        target: Place of the file; folders above are made. A link to a file is replaced: the work
            folder of a stranger may hold one to any place.
        new: Refuse to replace a file, which another program may have written by then.
        durable: Flush it to the disk first, so that it also survives a power cut; the folder has
            to be there.

    Raises:
        NotWritten: It cannot be written; errors of other files pass.
    """
    with _moved(Path(target), new=new, durable=durable) as beside:
        yield beside


@contextmanager
def whole_folder(target: AnyPath) -> Iterator[Path]:
    """An empty folder to write into, which becomes ``target`` when the block ends.

    Args:
        target: A folder that does not exist or is empty.

    Raises:
        NotWritten: It cannot be written, or something is there by then.
    """
    with _moved(Path(target), folder=True) as beside:
        with _explained(Path(target), beside.parent):
            beside.mkdir()
        yield beside


def write(
    target: AnyPath, content: str | bytes, *, new: bool = False, durable: bool = False
) -> Path:
    """Write a file as `whole_file` does.

    Text is written in UTF-8, and a surrogate that stands alone as the escape that JSON has for it.

    Returns:
        ``target``.
    """
    with whole_file(target, new=new, durable=durable) as beside:
        if isinstance(content, str):
            content = content.encode(errors='backslashreplace')
        beside.write_bytes(content)
    return Path(target)


def write_picture(target: AnyPath, picture: Any, **options: Any) -> Path:
    """Write an image of Pillow in the format that the suffix names, as `whole_file` does.

    Args:
        target: File.
        picture: Image.
        **options: As for Pillow's ``Image.save``.

    Returns:
        ``target``.
    """
    from PIL import Image  # commands that answer at once do without

    content = io.BytesIO()  # since Pillow does not say that a disk is full
    kind = Image.registered_extensions()[Path(target).suffix.lower()]
    picture.save(content, kind, **options)
    return write(target, content.getvalue())


def remove_unfinished(folder: AnyPath) -> None:
    """Remove what a kill left in a folder that nobody else writes into."""
    for place in Path(folder).glob(f'{UNFINISHED}*'):
        shutil.rmtree(place, ignore_errors=True)


def reason(error: BaseException) -> str:
    """What the operating system said, from under the errors that followed from it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def _moved(
    target: Path, *, folder: bool = False, new: bool = False, durable: bool = False
) -> Iterator[Path]:
    place = None
    try:
        with _explained(target):
            _check_kind(target, folder)
            if not durable:  # a training's folder that is gone is not made anew on another disk
                target.parent.mkdir(parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=target.parent))
        with _explained(target, place):
            yield place / target.name
            if durable:
                _sync(place / target.name)
            if new and os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, 'another program wrote it')
            (place / target.name).replace(target)
            if durable:
                _sync(target.parent)
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _explained(target: Path, place: Path | None = None) -> Iterator[None]:
    """Say that a file cannot be written; errors of others than it and those below a place pass."""
    try:
        yield
    except OSError as error:
        if place is not None and not _is_of(error, target, place):
            raise
        raise NotWritten(f'{target} cannot be written ({reason(error)})') from error
    except ValueError as error:
        if 'embedded null' not in str(error):
            raise
        raise NotWritten(f'{target} cannot be written ({error})') from error


def _is_of(error: OSError, target: Path, place: Path) -> bool:
    """Whether an error is of a file, its folder, or what lies below the place of its parts."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str)]
    own = (str(target), str(target.parent))
    return not names or any(name in own or name.startswith(str(place)) for name in names)


def _check_kind(target: Path, folder: bool) -> None:
    """Refuse what is there and must not be replaced, such as ``/dev/null``."""
    if folder and os.path.lexists(target) and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, 'it is no folder')
    if not folder and target.is_dir():
        raise IsADirectoryError(errno.EISDIR, 'it is a folder')
    if not folder and os.path.lexists(target) and not target.is_file():
        raise FileExistsError(errno.EEXIST, 'it is no regular file')


def _sync(path: Path) -> None:
    """Flush a file, or a folder's entries, so that they survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems without this
            raise
    finally:
        os.close(handle)
