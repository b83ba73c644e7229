"""What stands before the page: whom it answers, and how much of theirs it keeps.

A name that somebody else owns can be made to lead to this machine (DNS rebinding), so that their
page could use this one from the visitor's browser. Gradio looks at the origin of a request only
where its host is local, and limits each upload, not all of them.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from anyio import fail_after
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

#: What is not an upload alone: the form around it.
_FORM = 2**16
#: So many of the largest uploads are kept, and less of what is shown of them.
_UPLOADS = 50
_PARTS = 8  # of the largest upload: after so much of what comes room is made again
_SILENT = 30.0  # seconds without a byte, after which a request is not waited for
_CROWDED = 503, 'Too many uploads at once; try again.'
_CLOSE = {'Connection': 'close'}  # the rest of the request is not read
_LOOPBACK = ('localhost', '127.0.0.1', '::1')

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Refusal = tuple[int, str]


class Guard:
    """ASGI middleware that refuses requests to other names, from other pages, and too large ones.

    While a request brings something, the oldest files are deleted until there is room for what came
    of it; what it announces takes nobody's place. One that falls silent is answered and left.

    Args:
        app: What answers the others.
        host: Address that the page listens on.
        folder: Where uploads and what is shown of them are kept.
        max_upload: Bytes of the largest upload; 50 times as much is kept.
        spared: Files of the page itself, which stay.
    """

    def __init__(
        self, app: App, host: str, folder: Path, max_upload: int, spared: Collection[Path] = ()
    ) -> None:
        self.app, self.folder, self.spared = app, folder, spared
        self.names = own_names(host)
        self.most, self.kept = max_upload + _FORM, max_upload * _UPLOADS
        self.part = max_upload // _PARTS
        # bytes of the requests that are being answered: came, still to come, and came since room
        # was made
        self._came = self._due = self._unseen = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the page answer it."""
        if scope['type'] not in ('http', 'websocket'):
            await self.app(scope, receive, send)
            return
        headers = Headers(raw=scope['headers'])
        refusal = self._stranger(headers) or self._too_much(scope, headers)
        if refusal is not None:
            status, text = refusal
            await PlainTextResponse(text, status)(scope, receive, send)
            return
        length = int(headers.get('content-length') or 0)
        body = _Body(receive, self._arrived, length)
        self._due += length
        try:
            await self.app(scope, body.receive if length else receive, send)
        except HTTPException as error:  # of the body, where the page leaves it to us
            answer = PlainTextResponse(error.detail, error.status_code, error.headers)
            await answer(scope, receive, send)
        finally:
            self._came -= body.came
            self._due -= length - body.came

    async def _arrived(self, count: int, first: bool) -> None:
        """Count bytes of a request and make room for them, and for what may come until next time.

        Raises:
            HTTPException: All requests together have brought too much.
        """
        self._came += count
        self._due -= count
        self._unseen += count
        if self._came > self.kept:
            raise HTTPException(*_CROWDED, headers=_CLOSE)
        if first or self._unseen >= self.part:
            self._unseen = 0
            most = self.kept - self._came - min(self.part, self._due)
            await run_in_threadpool(make_room, self.folder, most, self.spared)

    def _stranger(self, headers: Headers) -> Refusal | None:
        host, origin = headers.get('host', ''), headers.get('origin')
        if not is_own(host, self.names):
            return 403, 'This page is not at this address; use the one that its terminal shows.'
        if origin is not None and _place(origin) != host.lower():
            return 403, 'This page takes no requests from other pages.'
        return None

    def _too_much(self, scope: Scope, headers: Headers) -> Refusal | None:
        if '://' in scope['path']:  # Gradio would fetch it
            return 403, 'This page fetches nothing from elsewhere.'
        if 'transfer-encoding' in headers:
            return 411, 'The length of what is sent has to be said before.'
        length = headers.get('content-length') or '0'
        if not length.isdecimal() or len(length) > 18 or int(length) > self.most:
            return 413, 'The file exceeds the maximum allowed size.'
        if self._came + int(length) > self.kept:
            return _CROWDED
        return None


class _Body:
    """The body of a request as it comes.

    Args:
        source: Gives the next message of the server.
        arrived: Is told how many bytes came, and whether they are the first.
        length: Bytes that were announced.
    """

    def __init__(
        self, source: Receive, arrived: Callable[[int, bool], Awaitable[None]], length: int
    ) -> None:
        self._source, self._arrived, self._length = source, arrived, length
        self._more = True
        self.came = 0

    async def receive(self) -> MutableMapping[str, Any]:
        """The next message; once the body is there, that is waited for without a limit.

        Raises:
            HTTPException: Nothing comes, or there is no room for it.
        """
        if not self._more:
            return await self._source()
        try:
            with fail_after(_SILENT):
                message = await self._source()
        except TimeoutError as error:
            reason = f'Nothing came for {_SILENT:g} s.'
            raise HTTPException(408, reason, headers=_CLOSE) from error
        self._more = message.get('more_body', False)
        if count := min(len(message.get('body', b'')), self._length - self.came):
            first = not self.came
            self.came += count
            await self._arrived(count, first)
        return message


def own_names(host: str) -> frozenset[str]:
    """Names by which browsers reach a page that listens on a host name or address.

    Where others can reach it, also the names of the machine.
    """
    names = {'localhost', host}
    if host not in _LOOPBACK:
        name = socket.gethostname()
        names |= {name, f'{name}.local', socket.getfqdn()}
    return frozenset(name.lower() for name in names)


def is_own(host: str, names: frozenset[str]) -> bool:
    """Whether a Host header names this machine: by one of these names, or by any IP address.

    No one can make somebody else's address lead here, as they can with a name.
    """
    try:
        name = (urlsplit(f'//{host}').hostname or '').removesuffix('.')
    except ValueError:  # brackets
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return True


def _place(origin: str) -> str:
    """Host and port of an Origin header; empty for 'null'."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ''


def make_room(folder: Path, most: int, spared: Collection[Path] = ()) -> None:
    """Delete the oldest files below a folder until the others have at most so many bytes.

    Those that are spared neither count nor go.
    """
    files = sorted(file for file in _files(folder) if file[2] not in spared)
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total <= most:
            return
        path.unlink(missing_ok=True)
        total -= size


def _files(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """When each file was written, its bytes, and its path."""
    for path in folder.rglob('*'):
        try:
            status = path.lstat()
        except FileNotFoundError:  # deleted meanwhile
            continue
        if not path.is_dir():
            yield status.st_mtime_ns, status.st_size, path
