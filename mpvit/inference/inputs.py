"""The images and videos that a user names: files, folders, patterns, addresses.

Standard library only, so that an input that is not there is answered at once.
"""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from mpvit.errors import UserError, did_you_mean
from mpvit.files import paths


@dataclass(frozen=True)
class Place:
    """Where an image or a video is.

    Attributes:
        path: File or URL, as the user would write it.
        name: Relative path for what is made of it: below the folder that was named, or the name of
            the file alone.
    """

    path: str
    name: str

    @property
    def is_video(self) -> bool:
        """Whether it is named like a video."""
        return paths.is_video(self.name)

    @property
    def is_url(self) -> bool:
        """Whether it has to be downloaded."""
        return '://' in self.path


def find(inputs: Iterable[str | os.PathLike[str]]) -> list[Place]:
    """The images and videos that inputs stand for, each once, in the order named.

    Args:
        inputs: Files; folders, searched with all folders in them, hidden ones excepted; patterns
            such as ``photos/**/*.jpg``; addresses that begin with http:// or https://. What comes
            from a folder or a pattern is ordered by name and has to be named like an image or a
            video.

    Raises:
        UserError: One of them stands for nothing.
    """
    found: dict[str, Place] = {}
    for text in inputs:
        for place in _places(os.fspath(text)):
            found.setdefault(place.path if place.is_url else os.path.abspath(place.path), place)
    return list(found.values())


def _places(text: str) -> Iterator[Place]:
    path = Path(paths.expanded(text))
    if '://' in text:
        yield _address(text)
    elif path.is_dir():
        yield from _in_folder(path)
    elif path.exists():
        yield Place(str(path), path.name)
    else:
        yield from _matching(path)


def check_address(url: str) -> None:
    """Refuse an address that is not of the web.

    Args:
        url: Address.

    Raises:
        UserError: It begins with neither http:// nor https://.
    """
    try:
        parts = urlparse(url)
    except ValueError as error:  # such as http://[
        raise UserError(f'{url} is no address: {error}') from error
    if parts.scheme not in ('http', 'https') or not parts.netloc:
        raise UserError(f'{url}: only http:// and https:// are read; download the file first')


def _address(url: str) -> Place:
    check_address(url)
    parts = urlparse(url)
    name = Path(unquote(parts.path)).name
    return Place(url, parts.netloc if name in ('', '..') else name)


def _in_folder(folder: Path) -> Iterator[Place]:
    nothing = True
    for parent, children, files in os.walk(folder):
        children[:] = sorted(name for name in children if not name.startswith('.'))
        for path in map(Path(parent).joinpath, sorted(files)):
            if _is_known(path):
                nothing = False
                yield Place(str(path), path.relative_to(folder).as_posix())
    if nothing:
        raise UserError(f'folder {folder} has no images or videos ({_known_suffixes()})')


def _matching(pattern: Path) -> Iterator[Place]:
    matches = [Path(path) for path in sorted(glob.glob(str(pattern), recursive=True))]
    if not matches:
        raise UserError(f'input {pattern} not found{_hint(pattern)}')
    files = [path for path in matches if path.is_file() and _is_known(path)]
    if not files:
        raise UserError(f'{pattern} matches no images or videos ({_known_suffixes()})')
    yield from (Place(str(path), path.name) for path in files)


def _is_known(path: Path) -> bool:
    return not path.name.startswith('.') and (paths.is_image(path) or paths.is_video(path))


def _known_suffixes() -> str:
    return ' '.join(sorted(paths.IMAGES | paths.VIDEOS))


def _hint(path: Path) -> str:
    if glob.has_magic(str(path)):
        return ': no file matches it'
    if not path.parent.is_dir():
        return f': there is no folder {path.parent}'
    return did_you_mean(str(path), [str(path.parent / name) for name in os.listdir(path.parent)])
