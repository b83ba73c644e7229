"""Train, evaluate and draw on the toy dataset: python tools/demo.py."""

from _command import run

run(__file__)
