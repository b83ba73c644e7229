"""Fetching a file of the web: whole or not at all, within limits of bytes and time."""

import os
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.error import HTTPError
from urllib.parse import quote, urlparse

from tqdm import tqdm

from mpvit.errors import UserError
from mpvit.files.untrusted import (
    BYTES_VARIABLE,
    DOWNLOAD_BYTES,
    DOWNLOAD_SECONDS,
    SECONDS_VARIABLE,
    limit,
)

UNFINISHED = '.part'
_SILENT_SECONDS = 30.0  # without a byte
_CHUNK = 2**16
_LONGEST = 2**31  # seconds: 68 years, of 292 that a thread can wait for


class DownloadError(UserError):
    """A file could not be had; the message says from where and why."""


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to the same scheme, or from http to https, and no other."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request to go on with."""
        if urlparse(newurl).scheme not in (req.type, 'https'):
            raise DownloadError(f'{req.full_url} cannot be downloaded: it redirects to {newurl}')
        fp.close()  # or urllib reads into memory what comes with the redirection
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    progress: bool = False,
    check: Callable[[Path], object] | None = None,
) -> None:
    """Fetch a file, which is at its place once all of it is there.

    Until then it has no name where the system can do that (Linux), so that nothing of it stays if
    this process is killed. Elsewhere it lies beside its place under a name that ends in ``.part``,
    which is removed if anything goes wrong.

    Args:
        url: Address; only http and https are fetched.
        path: Where it goes; what is there is replaced.
        progress: Show a bar, if stderr is a terminal.
        check: Called with the path of the whole file before it goes to its place; raises what is
            wrong with it.

    Raises:
        DownloadError: See `fetch`.
    """
    path = Path(path)
    beside = path.with_name(path.name + UNFINISHED)
    beside.unlink(missing_ok=True)  # of a process that was killed
    try:
        file, place = _unnamed(path.parent) or (beside.open('wb'), beside)
        with file:
            fetch(url, file, shown=path.name if progress else None)
            file.flush()
            if check is not None:
                check(place)
            if place != beside:
                # any handle, ignored of a whole path, has Python follow the link of /proc
                os.link(place, beside, src_dir_fd=file.fileno(), follow_symlinks=True)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _unnamed(folder: Path) -> tuple[BinaryIO, Path] | None:
    """An open file of a folder without a name, and what to open it by; None if there is none."""
    try:
        file = os.fdopen(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666), 'wb')
    except (AttributeError, OSError):  # of other systems; of file systems that have none
        return None
    place = Path(f'/proc/self/fd/{file.fileno()}')
    if place.exists():
        return file, place
    file.close()
    return None


def fetch(
    url: str, file: IO[bytes], most_bytes: int = DOWNLOAD_BYTES, shown: str | None = None
) -> None:
    """Fetch what is at an address into an open file.

    Args:
        url: Address; only http and https are fetched, also after redirections.
        file: Where it goes.
        most_bytes: More are refused; `BYTES_VARIABLE` takes its place.
        shown: What to call it beside a bar, if stderr is a terminal; None for no bar.

    Raises:
        DownloadError: It cannot be had, is cut off, or is beyond a limit of bytes or of the time
            that it takes in all.
    """
    most_bytes = limit(BYTES_VARIABLE, most_bytes)
    most_seconds = limit(SECONDS_VARIABLE, DOWNLOAD_SECONDS, _LONGEST)
    end = time.monotonic() + most_seconds
    with _answer(url, most_seconds) as answer, _hung_up(answer, end):
        length = int(answer.headers.get('Content-Length') or 0)
        bar = tqdm(
            desc=shown,
            total=length or None,
            unit='B',
            unit_scale=True,
            disable=shown is None or not sys.stderr.isatty(),
        )
        with bar:
            count = 0
            while count <= most_bytes >= length and (chunk := _read(answer, end)):
                count += file.write(chunk)
                bar.update(len(chunk))
        if time.monotonic() >= end:
            raise DownloadError(
                f'{url} cannot be downloaded: it takes more than {most_seconds} s '
                f'({count:,} bytes so far); {SECONDS_VARIABLE} sets the limit'
            )
        if max(count, length) > most_bytes:
            raise DownloadError(
                f'{url} cannot be downloaded: it has more than {most_bytes:,} bytes; '
                f'{BYTES_VARIABLE} sets the limit'
            )
        if count < length:
            raise DownloadError(
                f'{url} cannot be downloaded: it was cut off after {count:,} of {length:,} bytes'
            )


def content_type(url: str) -> str:
    """What a server says that an address holds, such as ``'image/jpeg'``; empty if it does not."""
    try:
        with _answer(url, _SILENT_SECONDS) as answer:
            return str(answer.headers.get_content_type())
    except DownloadError:
        return ''


@contextmanager
def _hung_up(answer: Any, end: float) -> Iterator[None]:
    """Hang up at a moment, which also ends a read that waits.

    A line of an answer in chunks may come a byte at a time and without end: the read of it does not
    return, and never runs into the time limit of a socket either.
    """
    if answer.isclosed():  # all of it has come
        yield
        return
    with socket.socket(fileno=os.dup(answer.fileno())) as line:
        timer = threading.Timer(end - time.monotonic(), _hang_up, [line])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _hang_up(line: socket.socket) -> None:
    with suppress(OSError):  # the server has hung up
        line.shutdown(socket.SHUT_RDWR)


def _read(answer: Any, end: float) -> bytes:
    """What came next; nothing at the end of it, and after the moment of hanging up."""
    if time.monotonic() >= end:
        return b''
    try:
        return answer.read1(_CHUNK)
    except (OSError, HTTPException):
        if time.monotonic() < end:
            raise
        return b''


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of a call; one that takes too long goes on in a thread that nobody waits for.

    A server that gives its headers a byte at a time never runs into the time limit of a socket.

    Raises:
        TimeoutError: It took too long.
    """
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except FutureTimeout as error:
        if outcome.done():  # the time limit of the socket
            raise
        raise TimeoutError(f'no answer after {seconds:g} s') from error


@contextmanager
def _answer(url: str, seconds: float) -> Iterator[Any]:
    """The open answer of a server; what goes wrong with it becomes one line."""
    try:
        # what a browser accepts, such as spaces, is not an address yet
        address = quote(url, safe="%/:?=&#@!$'()*+,;[]~")
        if urlparse(address).scheme not in ('http', 'https'):
            raise ValueError('only http:// and https:// are read')
        request = urllib.request.Request(address, headers={'User-Agent': 'mpvit'})
        opener = urllib.request.build_opener(_SameScheme)
        with _within(seconds, partial(opener.open, request, timeout=_SILENT_SECONDS)) as answer:
            yield answer
    except (OSError, ValueError, HTTPException) as error:  # URLError is an OSError
        if isinstance(error, OSError) and error.filename and not isinstance(error, HTTPError):
            raise  # the file that is written, not the server
        code = f'HTTP {error.code} ' if isinstance(error, HTTPError) else ''
        reason = getattr(error, 'reason', error) or type(error).__name__
        raise DownloadError(f'{url} cannot be downloaded: {code}{reason}') from error
