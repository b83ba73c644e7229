"""Wheels of the Python package index as archives of data: nothing of them is run or installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from filelock import FileLock

from mpvit.errors import UserError
from mpvit.files.sha256 import check_sha256
from mpvit.files.writing import whole_folder

_MOST_SECONDS = 1800
_MOST_BYTES = 64 * 2**20  # of one file, unpacked


@dataclass(frozen=True)
class Wheel:
    """A wheel for any Python and any machine, and the sha256 that it must have."""

    package: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Name of the file."""
        return f'{self.package}-{self.version}-py3-none-any.whl'

    @property
    def place(self) -> Path:
        """Where it is kept: in a folder of its own below ``~/.cache`` or XDG_CACHE_HOME."""
        cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
        folder = Path(cache).expanduser() / 'mpvit' / 'wheels'
        return folder / f'{self.package}-{self.version}' / self.file


def fetched(wheel: Wheel) -> Path:
    """The file of a wheel, downloaded by one process while others that want it wait.

    pip downloads it, so that its settings count, such as those of a mirror.

    Raises:
        UserError: It cannot be had or is another file; then nothing of a download is kept.
    """
    path = wheel.place
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent.with_name(f'.{path.parent.name}.lock')):
            if not path.is_file():
                _download(wheel)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror or error}') from error
    try:
        check_sha256(path, wheel.sha256, what='wheel')
    except UserError as error:
        raise UserError(f'{error}, after you have deleted this one') from error
    return path


def contents(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Files of a wheel by their exact names in it.

    Raises:
        UserError: It is no archive, or a file is missing, damaged or larger than 64 MiB.
    """
    try:
        with ZipFile(path) as archive:
            large = [name for name in names if archive.getinfo(name).file_size > _MOST_BYTES]
            if large:
                raise UserError(f'{path}: {large[0]} has more than {_MOST_BYTES:,} bytes')
            return {name: archive.read(name) for name in names}
    except KeyError as error:
        raise UserError(f'{path}: {error.args[0]}') from error
    except BadZipFile as error:
        raise UserError(f'{path} is no wheel: {error}') from error


def _download(wheel: Wheel) -> None:
    folder = wheel.place.parent
    package = f'{wheel.package}=={wheel.version}'
    sys.stderr.write(f'Downloading {package} to {folder}\n')
    with whole_folder(folder) as work:
        # a source distribution would be run to learn what it needs
        options = f'--no-deps --only-binary :all: --no-cache-dir --no-input --dest {work}'.split()
        command = [*_pip(), 'download', '--quiet', '--disable-pip-version-check', *options, package]
        try:
            done = subprocess.run(
                command,
                cwd=work,  # `python -m` would take a pip.py of the current folder
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors='replace',
                timeout=_MOST_SECONDS,
            )
            lines = done.stderr.strip().splitlines()
            errors = [line for line in lines if line.startswith('ERROR: ')] or lines
            reason = errors[-1].removeprefix('ERROR: ') if errors else 'it is not in the index'
        except subprocess.TimeoutExpired:
            reason = f'it took more than {_MOST_SECONDS} s'
        if not (work / wheel.file).is_file():
            raise UserError(
                f'{package} cannot be downloaded with pip: {reason}. Without network, make the '
                f'folder {folder} and put {wheel.file} there, which '
                f'`pip download --no-deps {package}` downloads elsewhere'
            )
        check_sha256(work / wheel.file, wheel.sha256, wheel.file, 'wheel')


def _pip() -> list[str]:
    """The command line of pip: that of this Python, or one that uv fetches."""
    # importlib.util.find_spec would ask the finder of setuptools too, which then takes pip for
    # running, and importing setuptools fails from there on
    if PathFinder.find_spec('pip'):
        return [sys.executable, '-m', 'pip']
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', os.defpath)])
    uv = shutil.which('uv', path=beside)
    if uv is None:
        raise UserError(
            f'neither pip nor uv is there to download with; run `{sys.executable} -m ensurepip`'
        )
    return [uv, 'tool', 'run', '--python', sys.executable, 'pip']
