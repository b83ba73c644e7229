"""Published weights by name: what there is, and how to come by the files.

`published.json` holds the table. A config names an entry as ``mpvit://NAME``.
"""

import contextlib
import functools
import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlparse

from filelock import FileLock

from mpvit.errors import UserError, did_you_mean
from mpvit.files.download import download
from mpvit.files.sha256 import sha256_in_name
from mpvit.files.untrusted import DOWNLOAD_SECONDS, SECONDS_VARIABLE, limit

#: What a name begins with where a file or an address could stand as well.
PREFIX = 'mpvit://'
#: Stands for the published detector of the config that is named with it.
OFFICIAL = 'official'
#: Environment variable with a folder of files, for machines without network.
FOLDER = 'MPVIT_WEIGHTS'
_SUFFIXES = ('.pth', '.safetensors', '.bin', '.pt')
_GENERIC = ('model', 'pytorch_model')  # what Hugging Face calls every file


@dataclass(frozen=True)
class Address:
    """Where a file can be fetched, and its sha256 or the beginning of it where one is published."""

    url: str
    sha256: str | None = None

    @property
    def file(self) -> str | None:
        """Name of the file, if it says which it is."""
        name = Path(urlparse(self.url).path)
        return None if name.stem in _GENERIC else name.name


@dataclass(frozen=True)
class Published:
    """An entry of the table.

    Attributes:
        name: Of a detector that of its config.
        of: 'backbone' (an ImageNet classifier) or 'detector'.
        config: Of what it is a checkpoint of; that of the same name by default.
        model: What it is.
        published: What its authors measured with it.
        licence: Terms of the file.
        files: Addresses in the order to try: the official one, then others with the same weights.
    """

    name: str
    of: str
    model: str
    published: str
    licence: str
    files: tuple[Address, ...]
    config: str = ''

    def file_names(self) -> list[str]:
        """Names under which the file is looked for in the folder ``MPVIT_WEIGHTS``."""
        named = [address.file for address in self.files if address.file]
        return list(dict.fromkeys([*named, *(self.name + suffix for suffix in _SUFFIXES)]))


@functools.cache
def table() -> dict[str, Published]:
    """All entries by name."""
    text = Path(__file__).with_name('published.json').read_text(encoding='utf-8')
    return {
        name: Published(name, files=tuple(Address(**file) for file in entry.pop('files')), **entry)
        for name, entry in json.loads(text).items()
    }


def entry_of(name: str) -> Published:
    """An entry by its name, with or without ``mpvit://``.

    Raises:
        UserError: There is none.
    """
    name = name.removeprefix(PREFIX)
    if name not in table():
        hint = did_you_mean(name, table()) or '; `mpvit weights` lists them'
        raise UserError(f'there are no published weights {name}{hint}')
    return table()[name]


def official(config: str) -> Published:
    """What is published for a config.

    Raises:
        UserError: Nothing is.
    """
    for entry in table().values():
        if config == (entry.config or entry.name):
            return entry
    raise UserError(
        f'{OFFICIAL}: nothing is published for config {config}; `mpvit weights` lists what is'
    )


def local_file(entry: Published) -> Path | None:
    """The file of an entry on this machine, in ``MPVIT_WEIGHTS`` or among the downloads.

    Raises:
        UserError: ``MPVIT_WEIGHTS`` is no folder, or the file in it is none or another one.
    """
    from mpvit.checkpoints.reading import check_file  # not at the top: it needs torch

    folder = os.environ.get(FOLDER)
    if folder:
        place = Path(folder).expanduser()
        if not place.is_dir():
            raise UserError(f'{FOLDER}={folder}: there is no such folder')
        for name in entry.file_names():
            if (place / name).is_file():
                sums = {address.file: address.sha256 for address in entry.files}
                check_file(place / name, sums.get(name))
                return place / name
    return next((p for a in entry.files if (p := download_place(a.url)).is_file()), None)


def fetch(entry: Published) -> Path:
    """The file of an entry, downloaded if it is not on this machine.

    Raises:
        UserError: None of its addresses gave it; with what each of them said.
    """
    found = local_file(entry)
    if found is not None:
        return found
    if not _is_first_process():
        return _awaited(entry)
    reasons = []
    for address in entry.files:
        try:
            return cached(address.url, address.sha256)
        except UserError as error:
            reasons.append(str(error))
    raise UserError(
        f'{entry.name} ({entry.model}) is not on this machine and could not be fetched: '
        f'{"; ".join(reasons)}. Put {entry.file_names()[0]} into a folder and set {FOLDER} to it'
    )


def _is_first_process() -> bool:
    """Whether this is the process of a distributed run that downloads for its machine."""
    names = ('LOCAL_RANK', 'SLURM_LOCALID', 'OMPI_COMM_WORLD_LOCAL_RANK')
    return all(os.environ.get(name, '0') == '0' for name in names)


def _awaited(entry: Published) -> Path:
    """What the first process of this machine downloads; if it cannot, it says so and ends the run.

    Raises:
        UserError: Nothing came.
    """
    most = limit(SECONDS_VARIABLE, DOWNLOAD_SECONDS)
    end = time.monotonic() + len(entry.files) * most
    while time.monotonic() < end:
        found = local_file(entry)
        if found is not None:
            return found
        time.sleep(0.5)
    raise UserError(f'{entry.name}: the first process of this machine did not download it')


def download_place(url: str) -> Path:
    """Where the download of an address is kept: among torch's, in a folder for the whole address.

    Two addresses may end in the same name. One that names its sha256 needs no folder: it is where
    torch itself would keep it.
    """
    try:
        name = Path(urlparse(url).path).name or 'download'
    except ValueError as error:
        raise UserError(f'{url} is no address: {error}') from error
    return _downloads() / ('' if sha256_in_name(name) else _key(url)) / name


def cached(url: str, sha256: str | None = None) -> Path:
    """The file of an address, downloaded by one process while others that want it wait.

    Args:
        url: Its address.
        sha256: In hex, or its beginning; None for no check beyond the name's.

    Raises:
        UserError: It cannot be had or is no checkpoint or another one; then nothing is kept.
    """
    from mpvit.checkpoints.reading import read  # not at the top: it needs torch

    path = download_place(url)
    if path.is_file():
        return path
    try:
        lock = _downloads() / '.locks' / _key(url)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not path.is_file():
                sys.stderr.write(f'Downloading {url} to {path}\n')
                path.parent.mkdir(exist_ok=True)
                try:
                    download(
                        url, path, progress=True, check=partial(read, sha256=sha256, shown=url)
                    )
                except BaseException:
                    if path.parent.name == _key(url):
                        with contextlib.suppress(OSError):
                            path.parent.rmdir()
                    raise
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror or error}') from error
    return path


def _downloads() -> Path:
    """Where torch keeps downloads, without importing it."""
    base = os.environ.get('XDG_CACHE_HOME', '~/.cache')
    home = os.environ.get('TORCH_HOME', os.path.join(base, 'torch'))
    return Path(home).expanduser() / 'hub' / 'checkpoints'


def _key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]
