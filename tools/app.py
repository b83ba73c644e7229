"""Show detectors in the browser: python tools/app.py [CONFIG CHECKPOINT]."""

import argparse
import warnings
from typing import Any

from _cli import light, parse, run


def main() -> None:
    """Parse arguments and serve the page."""
    parser = argparse.ArgumentParser(
        description='Show in the browser what detectors find (docs/app.md).'
    )
    parser.add_argument('config', nargs='?', help='config file')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='its checkpoint (default: those found in --work-dirs, the newest first)',
    )
    parser.add_argument(
        '--work-dirs',
        default='work_dirs',
        metavar='DIR',
        help='folder to search for checkpoints (default: work_dirs)',
    )
    parser.add_argument(
        '--images',
        metavar='DIR',
        help='folder of pictures to choose from (default: the toy validation set, where it is)',
    )
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen on (default: 127.0.0.1)'
    )
    parser.add_argument(
        '--port', type=int, help='port to listen on (default: the first free one from 7860)'
    )
    parser.add_argument(
        '--max-upload',
        type=int,
        default=20,
        metavar='MB',
        help='size of the largest upload (default: 20 MB)',
    )
    parser.add_argument('--device', help='where detectors run (default: a GPU, or else the CPU)')
    arguments = parse(parser, lambda given: _check(parser, given))
    run(lambda: _serve(**arguments))


def _check(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    if bool(arguments['config']) != bool(arguments['checkpoint']):
        parser.error('name CONFIG and CHECKPOINT, or neither')
    if arguments['port'] is not None and not 1 <= arguments['port'] <= 65535:
        parser.error('--port must be from 1 to 65535')
    if arguments['max_upload'] < 1:
        parser.error('--max-upload must be 1 or more')


def _serve(
    config: str | None, checkpoint: str | None, work_dirs: str, images: str | None, **settings: Any
) -> None:
    light('arguments').values.check_address(settings['host'], settings['port'])
    files = light('app.sources')
    sources = files.choose_sources(config, checkpoint, work_dirs)
    pictures = files.find_pictures(images)
    print('Starting ...', flush=True)
    warnings.simplefilter('ignore')  # deprecations inside the libraries, nothing to act on
    from mpvit.app.server import serve

    serve(sources, pictures, **settings)


if __name__ == '__main__':
    main()
