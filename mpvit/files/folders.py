"""Folders that are there whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``target`` in one step when the block ends.

    Until then it lies beside ``target`` under a hidden name. If the block raises, it is removed.

    Args:
        target: A folder that does not exist or is empty, in one that exists.

    Raises:
        OSError: It cannot be written, or something is there by then.
    """
    work = Path(tempfile.mkdtemp(prefix=f'.{target.name}-', dir=target.parent))
    try:
        yield work
        work.chmod(0o755)  # a temporary folder is for its owner alone
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
