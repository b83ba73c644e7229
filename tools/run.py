"""Run a script with mpvit imported first: python tools/run.py SCRIPT [ARGUMENT ...]."""

import argparse
import importlib.util
import os
import runpy
import sys
import warnings
from pathlib import Path

from _cli import light, parse, run


def main() -> None:
    """Parse arguments and become the script."""
    parser = argparse.ArgumentParser(
        description='Run a script with mpvit imported first. So mmdet, its tools and their like '
        'work where mmcv came without compiled ops, and configs may inherit from `mpvit::...`.'
    )
    parser.add_argument(
        'script', metavar='SCRIPT', help='a Python file, or mmdet/tools/... for one of mmdet itself'
    )
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='ARGUMENT')
    given = parse(parser)
    run(lambda: _become(given['script'], given['arguments']))


def _become(name: str, arguments: list[str]) -> None:
    script = _find(name)
    import mpvit  # noqa: F401

    warnings.filterwarnings('ignore', category=SyntaxWarning)
    sys.argv[:] = [str(script), *arguments]
    sys.path[0] = str(script.parent)  # as if Python had been given the script
    runpy.run_path(str(script), run_name='__main__')


def _find(name: str) -> Path:
    path = Path(name)
    if path.parts[:1] == ('mmdet',) and not path.is_file():
        package = importlib.util.find_spec('mmdet')
        if package is not None:
            path = Path(package.submodule_search_locations[0], '.mim', *path.parts[1:])
    if path.suffix == '.py' and path.is_file():
        return path
    raise light('errors').UserError(
        f"there is no Python script {name}; mmdet's own are mmdet{os.sep}tools{os.sep}..."
    )


if __name__ == '__main__':
    main()
