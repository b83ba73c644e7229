"""Show detectors in the browser: python tools/app.py [CONFIG CHECKPOINT]."""

from _command import run

run(__file__)
