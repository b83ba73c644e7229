"""List or download published weights: python tools/weights.py [NAME ...]."""

from _command import run

run(__file__)
