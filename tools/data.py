"""Write a small dataset to try things on: python tools/data.py NAME [DIR]."""

from _command import run

run(__file__)
