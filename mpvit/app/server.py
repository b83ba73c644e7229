"""Serving the page."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mpvit.register  # noqa: F401
from mpvit.app.detectors import Detectors
from mpvit.app.sources import Source
from mpvit.errors import UserError, optional

_LOCAL = ('127.0.0.1', 'localhost', '::1')
_FONT = ('system-ui', 'sans-serif')  # the browser's own: nothing is fetched from elsewhere


def _say(line: str) -> None:
    sys.stdout.write(f'{line}\n')
    sys.stdout.flush()  # also where it is read by another program


def serve(
    sources: Sequence[Source],
    pictures: Sequence[Path] = (),
    *,
    host: str = '127.0.0.1',
    port: int | None = None,
    max_upload: int = 20,
    device: str | None = None,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; then nothing of it stays on disk.

    Args:
        sources: The detectors that it offers, the first one chosen.
        pictures: The pictures that it offers.
        host: Address that it listens on.
        port: Port that it listens on; None for the first free one from 7860.
        max_upload: Size of the largest upload in MB.
        device: Where detectors run, such as ``'cuda:0'``; None for a GPU where there is one.

    Raises:
        UserError: The port is in use, the address is not of this machine, Gradio is missing, or the
            only detector cannot be loaded.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix='mpvit-app-') as folder:
            page, settings = _prepared(sources, pictures, Path(folder), max_upload, device, host)
            try:
                _, url, _ = page.launch(
                    server_name=host, server_port=port, prevent_thread_lock=True, **settings
                )
            except (OSError, ValueError) as error:  # the latter where a proxy is in the way
                raise UserError(f'cannot serve the page on {host}: {error}') from error
            if host not in _LOCAL:
                _say(f'warning: whoever reaches {host} can use the page; there is no password')
            _say(f'The page is at {url} - Ctrl-C ends it.')
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                page.close(verbose=False)
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepared(
    sources: Sequence[Source],
    pictures: Sequence[Path],
    folder: Path,
    max_upload: int,
    device: str | None,
    host: str,
) -> tuple[Any, dict[str, Any]]:
    """The page and how to launch it: offline, without telemetry, with nothing else to be had."""
    # Gradio asks itself whether it can be reached
    os.environ['NO_PROXY'] = ','.join([*_LOCAL, os.environ.get('NO_PROXY', '')])
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    os.environ['GRADIO_TEMP_DIR'] = str(folder / 'uploads')
    gr = optional('gradio', 'pages in the browser', 'app')
    _fetch_nothing(gr)
    from starlette.middleware import Middleware

    from mpvit.app.actions import Actions
    from mpvit.app.guard import Guard
    from mpvit.app.page import Page

    detectors = Detectors(sources, device)
    try:
        detectors.load(sources[0].name)  # not to keep the first picture waiting
    except UserError as error:
        if len(sources) == 1:
            raise
        _say(f'warning: {sources[0].name}: {error}')
    shown = folder / 'shown'
    shown.mkdir()
    page = Page(Actions(detectors, pictures, shown), max_upload).blocks
    guard = Middleware(
        Guard,
        host=host,
        folder=folder,
        max_upload=max_upload * 2**20,
        spared=frozenset(folder.rglob('*')),  # the pictures on offer
    )
    settings = dict(
        app_kwargs=dict(middleware=[guard]),
        allowed_paths=[str(shown)],
        max_file_size=max_upload * 2**20,
        state_session_capacity=64,
        theme=gr.themes.Default(primary_hue='teal', font=_FONT, font_mono=('monospace',)),
        css_paths=Path(__file__).parent / 'page.css',
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        share=False,
        quiet=True,
    )
    return page, settings


def _fetch_nothing(gradio: Any) -> None:
    """Let Gradio refuse web addresses in the place of uploads: it would fetch files of any size."""
    for name in ('ssrf_protected_download', 'async_ssrf_protected_download'):
        getattr(gradio.processing_utils, name)  # an error if a release calls them otherwise
        setattr(gradio.processing_utils, name, _refuse_address)


def _refuse_address(url: str, *arguments: Any, **named: Any) -> Any:
    raise UserError(f'{url} is no upload: the page fetches nothing from elsewhere')
