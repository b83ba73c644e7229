"""Detectors for use: loaded, prepared, run."""

from mpvit.engine.prepare import prepare
from mpvit.inference.loading import load_detector

__all__ = ['load_detector', 'prepare']
