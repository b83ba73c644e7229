"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT --eval bbox."""

from _command import run

run(__file__)
