"""Run a script with mpvit imported first: python tools/run.py SCRIPT [ARGUMENT ...]."""

from _command import run

run(__file__)
