"""Pictures of a run: python tools/plot.py curves WORK_DIR, python tools/plot.py errors WORK_DIR."""

from _command import run

run(__file__)
