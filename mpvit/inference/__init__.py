"""Detectors for use: loaded, prepared, run.

Names are looked up when they are used: a command that only looks for files need not wait for
PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpvit.engine.hooks.prepare_inference import prepare
    from mpvit.inference.detections import Detections
    from mpvit.inference.detector import Detector
    from mpvit.inference.loading import load_detector

__all__ = ['Detections', 'Detector', 'load_detector', 'prepare']
_PLACES = {
    'Detections': 'mpvit.inference.detections',
    'Detector': 'mpvit.inference.detector',
    'load_detector': 'mpvit.inference.loading',
    'prepare': 'mpvit.engine.hooks.prepare_inference',
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    importlib.import_module('mpvit.register')
    return getattr(importlib.import_module(_PLACES[name]), name)
