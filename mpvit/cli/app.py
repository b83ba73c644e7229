"""Show in the browser what detectors find (docs/app.md)."""

import argparse
import errno
import socket
import warnings
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.errors import UserError
from mpvit.files.paths import expanded


def add_arguments(parser: Any) -> None:
    """Declare the arguments."""
    parser.add_argument('config', nargs='?', type=types.config, help='config file')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        type=types.checkpoint,
        help='its checkpoint (default: those found in --work-dirs, the newest first)',
    )
    parser.names_detector = True
    text = 'folder to search for checkpoints'
    types.option(parser, '--work-dirs', expanded, 'DIR', text, 'work_dirs')
    text = 'folder of pictures to choose from (default: the toy validation set, where it is)'
    types.option(parser, '--images', expanded, 'DIR', text)
    types.option(parser, '--host', str, 'HOST', 'address to listen on', '127.0.0.1')
    text = 'port to listen on (default: the first free one from 7860)'
    types.option(parser, '--port', types.number(int, 1, 65535), 'PORT', text)
    types.option(parser, '--max-upload', types.positive, 'MB', 'size of the largest upload', 20)
    types.add_device(parser)


def check(parser: argparse.ArgumentParser, given: dict[str, Any]) -> None:
    """Refuse arguments that do not go together."""
    if bool(given['config']) != bool(given['checkpoint']):
        parser.error('name CONFIG and CHECKPOINT, or neither')


def run(
    config: str | None, checkpoint: str | None, work_dirs: str, images: str | None, **settings: Any
) -> None:
    """Serve the page."""
    from mpvit.app.sources import choose_sources, find_pictures

    _check_address(settings['host'], settings['port'])
    sources = choose_sources(config, checkpoint, work_dirs)
    pictures = find_pictures(images)
    print('Starting ...', flush=True)
    warnings.simplefilter('ignore')  # deprecations inside the libraries, nothing to act on
    import mpvit.register  # noqa: F401
    from mpvit.app.server import serve

    serve(sources, pictures, **settings)


def _check_address(host: str, port: int | None) -> None:
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        socket.create_server((host, port or 0), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f'port {port} of {host} is in use; choose another --port') from error
        raise UserError(f'cannot listen on {host}, port {port}: {error.strerror}') from error
