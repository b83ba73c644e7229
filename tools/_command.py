"""Runs the command of the package that a tool is named after."""

import sys
from pathlib import Path


def run(tool: str) -> None:
    """Run the command `mpvit NAME` for the tool ``NAME.py``."""
    try:
        from mpvit.cli import _main
    except ModuleNotFoundError as error:
        sys.exit(f'error: {error.name} is not installed; run `make setup` or `pip install -e .`')
    _main.run(Path(tool).stem)
