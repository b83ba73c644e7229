"""One HTML file about a run: python tools/report.py WORK_DIR."""

from _command import run

run(__file__)
