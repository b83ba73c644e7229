"""Detect in images and videos: python tools/infer.py CONFIG CHECKPOINT INPUT..."""

from _command import run

run(__file__)
