"""Detectors for use: loaded, prepared, run."""

from mpvit.engine.prepare import prepare
from mpvit.inference.detections import Detections
from mpvit.inference.detector import Detector
from mpvit.inference.loading import load_detector
from mpvit.inference.run import infer

__all__ = ['Detections', 'Detector', 'infer', 'load_detector', 'prepare']
