"""Convert a checkpoint: python tools/convert_checkpoint.py IN OUT [--to official]."""

from _command import run

run(__file__)
