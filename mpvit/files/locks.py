"""Locks, so that two processes never write into one folder, or one file, at the same time."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from mpvit.errors import UserError

#: The lock of a work folder, in it.
LOCK = '.lock'
_PATIENCE = 1.0  # seconds: the last holder may be about to let go
_RECORD = 1000  # characters of process and host, at most
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # NFS without its lock daemon, and others


@contextmanager
def folder_held(folder: Path, hint: str, name: str = LOCK) -> Iterator[None]:
    """Be the only one that writes into a folder, which is made if need be; see `held`."""
    with held(folder / name, str(folder), hint):
        yield


@contextmanager
def target_held(target: Path, hint: str) -> Iterator[None]:
    """Be the only one that makes a file, or a new folder: the lock lies beside it; see `held`."""
    # the same for all links to it; a link to a file is no other name of it (`whole_file`)
    place = Path(os.path.realpath(target if target.is_dir() else target.parent))
    place = place if target.is_dir() else place / target.name
    with held(place.with_name(f'.{place.name}{LOCK}'), str(target), hint):
        yield


@contextmanager
def held(lock_file: Path, shown: str, hint: str) -> Iterator[None]:
    """Hold a lock until the block ends, by whatever means, SIGKILL and power cuts among them.

    The lock is the operating system's (``flock``), which lets go when the process is gone; the
    workers of its dataloaders do not inherit it. The file, with the process and the host of the
    holder, is removed at the end, and means nothing where a killed process left it.

    On a shared disk this excludes other machines as far as the file system hands locks on: NFS does
    from Linux 2.6.12 on unless it is mounted with ``nolock`` or ``local_lock``, Lustre where it is
    mounted with ``flock``. A file system without such locks gets a lock that consists in the file
    being there. After a kill that one is taken over on the same host only; the error says which
    file to delete where the holder was on another.

    Args:
        lock_file: Its folder is made if need be, and removed if nothing is written there.
        shown: What is locked, for the error.
        hint: What else to do than to wait, for the error.

    Raises:
        UserError: Another process holds it, named with its host; or nothing can be written there.
    """
    lock: BaseFileLock = FileLock(lock_file, timeout=_PATIENCE)
    made = [place for place in lock_file.parents if not place.exists()]
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            lock_file.unlink(missing_ok=True)
            lock_file = lock_file.with_name(f'{lock_file.name}-held')
            lock = SoftFileLock(lock_file, timeout=_PATIENCE)
            lock.acquire()
    except Timeout as error:
        soft = isinstance(lock, SoftFileLock)
        raise UserError(_refusal(lock_file, shown, hint, soft)) from error
    except OSError as error:
        raise UserError(f'{shown} cannot be written: {error.strerror}') from error
    try:
        own = os.lstat(lock_file)
        if not isinstance(lock, SoftFileLock):  # which has said so itself
            with suppress(OSError):  # a full disk
                lock_file.write_text(f'{os.getpid()}\n{socket.gethostname()}\n')
        yield
    finally:
        if not isinstance(lock, SoftFileLock):
            with suppress(OSError):  # the folder may be gone, or another be in its place
                if os.path.samestat(own, os.lstat(lock_file)):
                    lock_file.unlink()  # before letting go: the next holder makes a file of its own
        lock.release()
        for place in made:
            with suppress(OSError):  # something was written
                place.rmdir()


def _refusal(lock_file: Path, shown: str, hint: str, soft: bool) -> str:
    holder = 'another process'  # it has just begun, or just ended
    with suppress(OSError, ValueError):
        if lock_file.is_file():
            with lock_file.open(errors='replace') as file:
                process, host, *_ = file.read(_RECORD).splitlines()
            holder = f'process {process} on {host.partition("?")[0]}'
    stale = f'; if that process is gone, delete {lock_file}' if soft else ''
    return f'{shown} is in use: {holder} writes there. Wait until it ends, or {hint}{stale}'
