"""The one way in for files that may come from strangers: what they are, and how much of them.

A file is opened only if it is a regular one: a named pipe or a device would make the reader wait
without an end. It has a limit of bytes; an image also a limit of pixels and a list of formats,
since Pillow starts other programs for some; a JPEG one of scans, each of which takes as long as a
whole image; YAML a limit of values, which aliases multiply.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mpvit.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

AnyPath = str | os.PathLike[str]

#: Environment variables that take the place of every limit below of bytes, of pixels, and of the
#: seconds of a download.
BYTES_VARIABLE, PIXELS_VARIABLE = 'MPVIT_MAX_BYTES', 'MPVIT_MAX_PIXELS'
SECONDS_VARIABLE = 'MPVIT_MAX_SECONDS'
#: Set to 1, files that need more than the safe readers allow are read too, and may run code.
TRUST_VARIABLE = 'MPVIT_TRUST_CHECKPOINTS'

IMAGE_BYTES = 2**30
TEXT_BYTES = 64 * 2**20  # the boxes of one image; configs and records of a run
JSON_BYTES = 4 * 2**30  # annotations, detections; and what mmengine reads
ANNOTATION_BYTES = 64 * 2**30  # read piece by piece
CHECKPOINT_BYTES = 64 * 2**30
VIDEO_BYTES = 2**50  # read piece by piece
DOWNLOAD_BYTES = 4 * 2**30
DOWNLOAD_SECONDS = 1800
YAML_BYTES = 2**20

#: Pixels of the largest image and of a frame of a video; a small file can hold any number, of which
#: each takes up to 16 bytes while it is decoded. Pillow's own limit.
MOST_PIXELS = 178_956_970
#: The same on the page, whose pictures come from anybody who can reach it.
PAGE_PIXELS = 50_000_000
#: Pillow's names of the formats that are read, whatever a file is called.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM', 'JPEG2000', 'AVIF')
#: The same on the page.
PAGE_FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'TIFF', 'WEBP')

#: Scans of a progressive JPEG. Encoders write about ten, a few for each colour.
MOST_SCANS = 500

_MOST_VALUES = 10**6
_DIGITS = 4300  # of a number in YAML; as Python
_REASON = 300  # characters
_PIECE = 2**20  # bytes
_SCAN = b'\xff\xda'  # the marker before each; in what is encoded 0 follows on 255
_KINDS = {
    stat.S_ISFIFO: 'a named pipe',
    stat.S_ISSOCK: 'a socket',
    stat.S_ISCHR: 'a device',
    stat.S_ISBLK: 'a device',
}
_PILLOW = threading.Lock()


def trusted() -> bool:
    """Whether the user said that files may run code, by the environment variable."""
    return os.environ.get(TRUST_VARIABLE) == '1'


def limit(variable: str, default: int, most: int = 2**63 - 1) -> int:
    """A limit, or what its environment variable says.

    Args:
        variable: Its name.
        default: The limit where the variable is not set or empty.
        most: The largest number that whoever counts with it can take, in place of a larger one.

    Raises:
        UserError: The variable holds no positive number.
    """
    text = os.environ.get(variable)
    if not text:
        return default
    try:
        value = int(float(text))
    except (ValueError, OverflowError):
        value = 0
    if value < 1:
        raise UserError(f'{variable}={text} is no positive number')
    return min(value, most)


def open_untrusted(path: AnyPath, most_bytes: int) -> BinaryIO:
    """Open a regular file to be read.

    Args:
        path: File.
        most_bytes: One of the limits above, in whose place `BYTES_VARIABLE` can stand.

    Raises:
        OSError: There is none, it may not be read, it is something else than a regular file, or it
            is larger.
    """
    check_regular(path, most_bytes)  # before: a device may act on being opened
    file = open(path, 'rb', opener=_without_waiting)
    try:
        _check(os.fstat(file.fileno()), path, most_bytes)  # another may be there by now
    except OSError:
        file.close()
        raise
    return file


def read_untrusted(path: AnyPath, most_bytes: int) -> bytes:
    """The content of a regular file; see `open_untrusted`."""
    with open_untrusted(path, most_bytes) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # and not what is added meanwhile


def holds(path: AnyPath, text: str) -> bool:
    """Whether there is a file, and it holds this text and nothing else."""
    content = text.encode()
    if not os.path.isfile(path) or os.path.getsize(path) != len(content):
        return False
    return read_untrusted(path, TEXT_BYTES) == content


def check_regular(path: AnyPath, most_bytes: int) -> None:
    """Make sure of what `open_untrusted` asks for, of a file that a library will open.

    Raises:
        OSError: As there.
    """
    try:
        status = os.stat(path)
    except ValueError as error:  # a null character in the name
        raise OSError(errno.EINVAL, str(error), os.fspath(path)) from error
    _check(status, path, most_bytes)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_NOCTTY', 0))


def _check(status: os.stat_result, path: AnyPath, most_bytes: int) -> None:
    mode, name = status.st_mode, os.fspath(path)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, 'it is a folder', name)
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS.items() if is_kind(mode)), 'something else')
        raise OSError(errno.EINVAL, f'it is {kind}, not a regular file', name)
    most = limit(BYTES_VARIABLE, most_bytes)
    if status.st_size > most:
        reason = f'it has more than {most:,} bytes; {BYTES_VARIABLE} sets the limit'
        raise OSError(errno.EFBIG, reason, name)


def _refuse(error: OSError) -> None:
    raise UserError(f'folder {error.filename} cannot be read: {error.strerror}') from error


def walk(
    root: AnyPath, unreadable: Callable[[OSError], None] = _refuse
) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those in it, with the names of their files, all in the order of their names.

    Hidden folders are left out, and links to folders are not followed: a loop of them has no end.

    Args:
        root: Folder.
        unreadable: What to do about a folder that cannot be read.

    Raises:
        UserError: One cannot be read.
    """
    for parent, folders, files in os.walk(root, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        yield Path(parent), sorted(files)


@contextmanager
def open_image(
    source: AnyPath | BinaryIO,
    formats: Sequence[str] = FORMATS,
    most_pixels: int = MOST_PIXELS,
) -> 'Iterator[Image]':
    """Open an image, of which nothing is decoded yet.

    Args:
        source: Path, or an open file.
        formats: Pillow's names of those that are read, whatever the file is called.
        most_pixels: Larger images are refused; `PIXELS_VARIABLE` takes its place.

    Raises:
        OSError: See `open_untrusted`; or it has more pixels, or is a JPEG with more scans.
        PIL.UnidentifiedImageError: It is in none of the formats.
        Exception: It is damaged; each format has errors of its own.
    """
    from PIL import Image, UnidentifiedImageError

    most = limit(PIXELS_VARIABLE, most_pixels)
    if isinstance(source, (str, os.PathLike)):
        opened: Any = open_untrusted(source, IMAGE_BYTES)
    else:
        opened = nullcontext(source)
    with opened as file:
        with of_any_size():
            try:
                image = Image.open(file, formats=tuple(formats))
            except (KeyError, UnidentifiedImageError) as error:  # KeyError: Pillow lacks a format
                kinds = ', '.join(formats)
                raise UnidentifiedImageError(f'it is no image of the kinds {kinds}') from error
        with image:
            if image.width * image.height > most:
                size = f'it has {image.width} x {image.height} pixels, more than {most:,}'
                raise OSError(errno.EFBIG, f'{size}; {PIXELS_VARIABLE} sets the limit')
            if image.format in ('JPEG', 'MPO'):
                _check_scans(file)
            yield image


def _check_scans(file: BinaryIO) -> None:
    """Refuse a JPEG that says in few bytes that all of it is to be gone through many times."""
    place, scans, last = file.tell(), 0, b''
    file.seek(0)
    while piece := file.read(_PIECE):
        scans += (last + piece).count(_SCAN)
        last = piece[-1:]
    file.seek(place)
    if scans > MOST_SCANS:
        raise OSError(errno.EFBIG, f'it is a JPEG with more than {MOST_SCANS} scans; save it anew')


@contextmanager
def of_any_size() -> Iterator[None]:
    """Let Pillow open images beyond its own limit, a variable of its module; for those checked."""
    from PIL import Image

    with _PILLOW:
        own, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = own


def parse_yaml(text: str | bytes) -> Any:
    """The plain values of a YAML document; None if it is empty.

    Raises:
        ValueError: It is none, is too large or too deep, or its aliases multiply without measure.
    """
    import yaml

    most = limit(BYTES_VARIABLE, YAML_BYTES)
    if len(text) > most:
        raise ValueError(f'it has more than {most:,} bytes; {BYTES_VARIABLE} sets the limit')
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        check_values(node, _parts)
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error
    except ValueError:
        raise
    except Exception as error:  # PyYAML's own, and whatever its constructors do with odd values
        reason = ' '.join(str(error)[:_REASON].split())
        raise ValueError(f'it is no YAML: {type(error).__name__} {reason}') from error


def _parts(node: Any) -> Iterator[Any]:
    """What a node of YAML holds."""
    if node.id == 'mapping':
        yield from (part for pair in node.value for part in pair)
    elif node.id == 'sequence':
        yield from node.value
    elif len(node.value) > _DIGITS and not node.tag.endswith(':str'):
        raise ValueError(f'a number has more than {_DIGITS:,} digits')


def check_values(value: Any, parts: Callable[[Any], Iterable[Any]]) -> None:
    """Make sure that a value does not multiply: it may hold the same one in many places.

    Args:
        value: What was read.
        parts: Gives the values that one holds.

    Raises:
        ValueError: With each counted wherever it stands they are more than a million, or it
            contains itself, or it is nested too deeply.
    """
    try:
        count = _count(value, parts, {})
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error
    if count > _MOST_VALUES:
        raise ValueError(f'it stands for more than {_MOST_VALUES:,} values')


def _count(value: Any, parts: Callable[[Any], Iterable[Any]], known: dict[int, int | None]) -> int:
    if id(value) in known:
        count = known[id(value)]
        if count is None:
            raise ValueError('it contains itself')
        return count
    known[id(value)] = None
    count = 1 + sum(_count(part, parts, known) for part in parts(value))
    known[id(value)] = count
    return count
