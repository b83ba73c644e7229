"""Train a detector: python tools/train.py CONFIG [--data DIR]."""

from _command import run

run(__file__)
