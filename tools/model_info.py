"""Parameters, operations, memory and latency of detectors: python tools/model_info.py CONFIG."""

from _command import run

run(__file__)
