"""Look for problems in a dataset: python tools/check_dataset.py DIR."""

from _command import run

run(__file__)
