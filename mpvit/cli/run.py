"""Run a script with mpvit registered first.

So mmdet, its tools and their like work where mmcv came without compiled ops, and configs may
inherit from `mpvit::...`.
"""

import argparse
import importlib.util
import os
import runpy
import sys
import warnings
from pathlib import Path

from mpvit.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'script', metavar='SCRIPT', help='a Python file, or mmdet/tools/... for one of mmdet itself'
    )
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='ARGUMENT')


def run(script: str, arguments: list[str]) -> None:
    """Become the script."""
    path = _find(script)
    import mpvit.register  # noqa: F401

    warnings.filterwarnings('ignore', category=SyntaxWarning)
    sys.argv[:] = [str(path), *arguments]
    sys.path[0] = str(path.parent)  # as if Python had been given the script
    runpy.run_path(str(path), run_name='__main__')


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    if path.parts[:1] == ('mmdet',) and not path.is_file():
        package = importlib.util.find_spec('mmdet')
        if package is not None and package.submodule_search_locations:
            path = Path(package.submodule_search_locations[0], '.mim', *path.parts[1:])
    if path.suffix == '.py' and path.is_file():
        return path
    raise UserError(
        f"there is no Python script {name}; mmdet's own are mmdet{os.sep}tools{os.sep}..."
    )
