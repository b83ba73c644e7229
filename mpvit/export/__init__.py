"""Detectors as ONNX and OpenVINO files, each compared with PyTorch before it is handed over."""

from mpvit.export.files import export

__all__ = ['export']
