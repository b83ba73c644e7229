"""A web server, pages taken apart, and a browser for tests."""

import functools
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking']
FLAGS += ['--disable-component-update', '--disable-sync', '--no-first-run']


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; gives the address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


class Elements(HTMLParser):
    """All elements of a page with their attributes, and its visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text, self._open = '', ''
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ''

    def handle_data(self, data: str) -> None:
        if self._open not in ('script', 'style'):
            self.text += data

    def named(self, name: str) -> list[dict[str, str]]:
        """Attributes of the elements of a tag or a class."""
        return [a for tag, a in self.found if name in (tag, *a.get('class', '').split())]


@contextmanager
def browser_page(width: int = 1280, seconds: float = 30) -> Iterator[Any]:
    """A page of Chromium; what it is asked for may take so many seconds."""
    if CHROMIUM is None:
        pytest.skip('needs Chromium (Debian: apt install chromium)')
    api = pytest.importorskip('playwright.sync_api', reason='needs playwright')
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=dict(width=width, height=900))
        page.set_default_timeout(1000 * seconds)
        yield page
        browser.close()
