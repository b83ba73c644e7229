"""Fetching a file of the web: whole or not at all, within limits of bytes and time."""

import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import quote, urlparse

from tqdm import tqdm

from mpvit.errors import UserError

MOST_BYTES = 4 * 2**30
MOST_SECONDS = 1800.0
UNFINISHED = '.part'
_SILENT_SECONDS = 30.0  # without a byte
_CHUNK = 2**16


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
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    most_bytes: int = MOST_BYTES,
    most_seconds: float = MOST_SECONDS,
    progress: bool = False,
    check: Callable[[Path], object] | None = None,
) -> None:
    """Fetch a file, which is at its place once all of it is there.

    Until then it lies beside its place under a name that ends in ``.part``, which is removed if
    anything goes wrong.

    Args:
        url: Address; only http and https are fetched.
        path: Where it goes; what is there is replaced.
        most_bytes: A longer file is refused.
        most_seconds: The time that it may take in all.
        progress: Show a bar, if stderr is a terminal.
        check: Called with the whole file before it goes to its place; raises what is wrong with it.

    Raises:
        DownloadError: It cannot be had, is cut off, or is beyond a limit.
    """
    path = Path(path)
    beside = path.with_name(path.name + UNFINISHED)
    limit = time.monotonic() + most_seconds
    try:
        with _answer(url, most_seconds) as answer, beside.open('wb') as file:
            length = int(answer.headers.get('Content-Length') or 0)
            bar = tqdm(
                desc=path.name,
                total=length or None,
                unit='B',
                unit_scale=True,
                disable=not (progress and sys.stderr.isatty()),
            )
            with bar:
                count = 0
                while count <= most_bytes >= length and (chunk := answer.read1(_CHUNK)):
                    count += file.write(chunk)
                    bar.update(len(chunk))
                    if time.monotonic() > limit:
                        raise DownloadError(
                            f'{url} cannot be downloaded: it takes more than {most_seconds:g} s '
                            f'({count:,} bytes so far)'
                        )
            if max(count, length) > most_bytes:
                raise DownloadError(
                    f'{url} cannot be downloaded: it has more than {most_bytes:,} bytes'
                )
            if count < length:
                raise DownloadError(
                    f'{url} cannot be downloaded: it was cut off after {count:,} of '
                    f'{length:,} bytes'
                )
        if check is not None:
            check(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def content_type(url: str) -> str:
    """What a server says that an address holds, such as ``'image/jpeg'``; empty if it does not."""
    try:
        with _answer(url, _SILENT_SECONDS) as answer:
            return str(answer.headers.get_content_type())
    except DownloadError:
        return ''


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
