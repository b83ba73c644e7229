"""Which checkpoint of a work folder a training goes on from."""

import logging
import os
import re
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log

from mpvit.checkpoints.loading import read
from mpvit.engine.hooks.checkpoint import POINTER
from mpvit.errors import UserError

_NAME = re.compile(r'(epoch|iter)_\d+\.pth')
# how often torchrun or Slurm started the job again
_RESTARTS = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')


def is_restarted() -> bool:
    """Whether torchrun or Slurm started this program again after it was interrupted."""
    return any(os.environ.get(name, '0') not in ('', '0') for name in _RESTARTS)


def candidates(work_dir: str | os.PathLike[str]) -> list[Path]:
    """Checkpoints of the last training in a folder, in the order to try them in.

    The one that ``last_checkpoint`` names comes first, then the others by time. The best
    checkpoints are not among them: they hold weights only.

    Args:
        work_dir: Work folder.
    """
    folder = Path(work_dir)
    pointer = folder / POINTER
    named: list[Path] = []
    if pointer.is_file():
        text = pointer.read_text().strip()
        if not text:  # a training began here and has not saved yet; what is there is older
            return []
        named = [p for p in (Path(text), folder / Path(text).name) if p.is_file()][:1]
    found = [path for path in folder.glob('*.pth') if _NAME.fullmatch(path.name)]
    found.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return named + [path for path in found if path.resolve() not in [p.resolve() for p in named]]


def newest_checkpoint(work_dir: str | os.PathLike[str]) -> Path | None:
    """The newest checkpoint of a training that is whole; damaged ones are named in a warning.

    The main process looks, and all ranks get its answer.

    Args:
        work_dir: Work folder.

    Returns:
        The file, or None if the folder has none.

    Raises:
        UserError: All that are there are damaged.
    """
    answer: list[Path | str | None] = [None]
    if is_main_process():
        try:
            answer = [_newest(work_dir)]
        except UserError as error:
            answer = [str(error)]
    broadcast_object_list(answer)
    if isinstance(answer[0], str):
        raise UserError(answer[0])
    return answer[0]


def _newest(work_dir: str | os.PathLike[str]) -> Path | None:
    paths = candidates(work_dir)
    for path in paths:
        try:
            read(path)
        except UserError as error:
            print_log(f'Not resumed from: {error}', logger='current', level=logging.WARNING)
        else:
            return path
    if paths:
        raise UserError(
            f'cannot resume: none of the {len(paths)} checkpoints in {work_dir} is whole; name '
            'another with --resume FILE, or start anew in another --work-dir'
        )
    return None
