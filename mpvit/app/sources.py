"""Which detectors and pictures the page offers.

Standard library only, so that mistakes are answered at once.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mpvit.errors import UserError
from mpvit.files.paths import is_image, newest_config
from mpvit.files.untrusted import walk

#: Where `make demo` puts its validation pictures.
DEMO_PICTURES = Path('data/toy/val2017')


@dataclass(frozen=True)
class Source:
    """A detector on disk.

    Attributes:
        name: What the page calls it.
        config: Its config file; or the checkpoint, whose config is read as data.
        checkpoint: Its weights.
    """

    name: str
    config: str
    checkpoint: str


def choose_sources(
    config: str | None, checkpoint: str | None, work_dirs: str | os.PathLike[str]
) -> list[Source]:
    """The detector that the command line names, or else those that trainings left.

    Returns:
        The one that was named; or else the checkpoints in the work folders that have the config of
        their run beside them, newest first, named by their paths below the folder of these. What
        lies in a work folder is not executed: the config is that inside of the checkpoint.

    Raises:
        UserError: There is no detector to show, or a folder cannot be read.
    """
    if config is not None and checkpoint is not None:
        return [Source(Path(checkpoint).name, config, checkpoint)]
    root = Path(work_dirs)
    found = []
    paths = [path for path in _files(root) if path.suffix == '.pth']
    for path in sorted(paths, key=_age, reverse=True):
        if newest_config(path.parent) is not None:
            found.append(Source(path.relative_to(root).as_posix(), str(path), str(path)))
    if not found:
        raise UserError(
            f'no checkpoint with its config beside it in {work_dirs}: run `make demo` first, '
            'train a detector, or name CONFIG CHECKPOINT'
        )
    return found


def find_pictures(folder: str | os.PathLike[str] | None) -> list[Path]:
    """The pictures in a folder and its folders, by name; without one those of `make demo`, if any.

    Raises:
        UserError: A folder that was named is missing or has none, or one in it cannot be read.
    """
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f'--images {folder}: there is no such folder')
    root = DEMO_PICTURES if folder is None else Path(folder)
    found = sorted(filter(is_image, _files(root)))
    if folder is not None and not found:
        raise UserError(f'--images {folder}: no picture in it')
    return found


def _files(root: Path) -> list[Path]:
    """The files in a folder and its folders, see `walk`; none if there is no such folder."""
    paths = (parent / name for parent, names in walk(root) for name in names)
    return [path for path in paths if path.is_file()] if root.is_dir() else []


def _age(path: Path) -> tuple[int, int, str]:
    """What sorts checkpoints by time: in whole minutes, since copies are made in any order."""
    step = re.search(r'(\d+)\.pth$', path.name)
    return int(path.stat().st_mtime) // 60, int(step[1]) if step else 0, path.name
