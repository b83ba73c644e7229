"""The images and videos that a user names: files, folders, patterns, addresses.

Standard library only, so that an input that is not there is answered at once.
"""

import glob
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlparse

from mpvit.errors import UserError, did_you_mean
from mpvit.files.download import fetch
from mpvit.files.paths import IMAGES, VIDEOS, expanded, is_image, is_video
from mpvit.files.untrusted import DOWNLOAD_BYTES, IMAGE_BYTES, walk

# Addresses that are read as they come; and what an http address of that kind ends with.
_STREAMS = ('rtsp', 'rtsps', 'rtmp', 'rtmps', 'srt', 'tcp', 'udp')
_STREAM_FILES = ('.m3u8', '.mjpeg', '.mjpg')
_SUFFIXES = ' '.join(sorted(IMAGES | VIDEOS))


@dataclass(frozen=True)
class Place:
    """Where an image, a video or a camera is.

    Attributes:
        path: File or URL, as the user would write it, or the number of a camera.
        name: Relative path for what is made of it: below the folder that was named, or the name of
            the file alone.
        live: Whether it is a camera or a stream, whose frames come by themselves.
    """

    path: str
    name: str
    live: bool = False

    @property
    def is_video(self) -> bool:
        """Whether it is named like a video."""
        return self.live or is_video(self.name)

    @property
    def is_url(self) -> bool:
        """Whether it is an address."""
        return '://' in self.path

    @property
    def shown(self) -> str:
        """What results and messages call it: without the password that an address may hold."""
        if self.live and not self.is_url:
            return f'camera {self.path}'
        return re.sub(r'(?<=://)[^/]+@', '***@', self.path) if self.live else self.path

    @contextmanager
    def file(self) -> Iterator[str | BinaryIO]:
        """Its path, or what an address holds as an open file, which no name on disk outlives.

        Raises:
            UserError: It cannot be downloaded.
        """
        if not self.is_url:
            yield self.path
            return
        with tempfile.TemporaryFile() as file:
            fetch(self.path, file, DOWNLOAD_BYTES if self.is_video else IMAGE_BYTES)
            file.seek(0)
            yield file


def place_of(path: str | os.PathLike[str]) -> Place:
    """The place of a single file or URL, which is not looked for.

    Raises:
        UserError: It is empty, or an address, but none of the web.
    """
    text = os.fspath(path)
    if not text:
        raise UserError('an input is empty; name a file, a folder, a pattern or an address')
    if '://' not in text:
        return Place(expanded(text), Path(text).name)
    try:
        parts = urlparse(text)
    except ValueError as error:  # such as http://[
        raise UserError(f'{text} is no address: {error}') from error
    name = re.sub(r'[\x00-\x1f\x7f]', '_', Path(unquote(parts.path)).name)  # as of no file
    if parts.scheme in _STREAMS:
        return as_stream(text)
    if parts.scheme not in ('http', 'https') or not parts.netloc:
        raise UserError(
            f'{text}: only http://, https:// and streams ({", ".join(_STREAMS)}) are read; '
            'download the file first'
        )
    if Path(name).suffix.lower() in _STREAM_FILES:
        return as_stream(text)
    return Place(text, parts.netloc if name in ('', '..') else name)


def as_stream(address: str) -> Place:
    """The place of a stream, with a name made of its host and path."""
    host_and_path = re.sub(r'^\w+://([^/]*@)?|[?#].*', '', address)
    return Place(address, re.sub(r'\W+', '_', host_and_path).strip('_') or 'stream', live=True)


def find(inputs: Iterable[str | os.PathLike[str]]) -> list[Place]:
    """The images and videos that inputs stand for, each once, in the order named.

    Args:
        inputs: Files; folders, searched with all folders in them, hidden ones excepted; patterns
            such as ``photos/**/*.jpg``; addresses; numbers of cameras. What comes from a folder or
            a pattern is ordered by name and has to be named like an image or a video.

    Raises:
        UserError: One of them stands for nothing, or a folder cannot be read.
    """
    found: dict[str, Place] = {}
    for given in inputs:
        for place in _places(place_of(given)):
            found.setdefault(place.path if place.is_url else os.path.abspath(place.path), place)
    return list(found.values())


def _places(named: Place) -> Iterable[Place]:
    if named.is_url:
        return [named]
    path = Path(named.path)
    if re.fullmatch(r'[0-9]{1,3}', named.path) and not path.exists():
        return [Place(str(int(named.path)), f'camera_{int(named.path)}', live=True)]
    if path.is_dir():
        return _in_folder(path)
    return [named] if path.exists() else _matching(path)


def _in_folder(folder: Path) -> Iterator[Place]:
    nothing = True
    for parent, files in walk(folder):
        for path in filter(_is_known, map(parent.joinpath, files)):
            nothing = False
            yield Place(str(path), path.relative_to(folder).as_posix())
    if nothing:
        raise UserError(f'folder {folder} has no images or videos ({_SUFFIXES})')


def _matching(pattern: Path) -> list[Place]:
    paths = sorted(_matches(pattern))
    if not paths:
        raise UserError(f'input {pattern} not found{_hint(pattern)}')
    files = [path for path in paths if path.is_file() and _is_known(path)]
    if not files:
        raise UserError(f'{pattern} matches no images or videos ({_SUFFIXES})')
    return [Place(str(path), path.name) for path in files]


def _matches(pattern: Path) -> Iterator[Path]:
    """What fits a pattern, in which ``**`` stands for any number of folders (see `walk`)."""
    if '**' not in pattern.parts:
        yield from map(Path, glob.glob(str(pattern)))
        return
    place = pattern.parts.index('**')
    wanted = pattern.parts[place:]
    for folder in filter(os.path.isdir, glob.glob(str(Path(*pattern.parts[:place])))):
        for parent, files in walk(folder):
            for path in map(parent.joinpath, files):
                if _fits(path.relative_to(folder).parts, wanted):
                    yield path


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == '**':
        return any(_fits(parts[start:], wanted[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


def _is_known(path: Path) -> bool:
    return not path.name.startswith('.') and (is_image(path) or is_video(path))


def _hint(path: Path) -> str:
    if glob.has_magic(str(path)):
        return ': no file matches it'
    if not path.parent.is_dir():
        return f': there is no folder {path.parent}'
    return did_you_mean(str(path), [str(path.parent / name) for name in os.listdir(path.parent)])
