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

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

#: What is not an upload alone: the form around it.
_FORM = 2**16
#: So many of the largest uploads are kept, and less of what is shown of them.
_UPLOADS = 50
_LOOPBACK = ('localhost', '127.0.0.1', '::1')

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Refusal = tuple[int, str]


class Guard:
    """ASGI middleware that refuses requests to other names, from other pages, and too large ones.

    Before a request that may bring something, the oldest files are deleted until there is room.

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
        self._coming = 0  # bytes of the requests that are being answered

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
        self._coming += length
        try:
            if length:
                most = self.kept - self._coming
                await run_in_threadpool(make_room, self.folder, most, self.spared)
            await self.app(scope, receive, send)
        finally:
            self._coming -= length

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
        if self._coming + int(length) > self.kept:
            return 503, 'Too many uploads at once; try again.'
        return None


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
