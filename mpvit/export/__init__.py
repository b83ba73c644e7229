"""Detectors as ONNX and OpenVINO files, each compared with PyTorch before it is handed over."""

import mpvit.register  # noqa: F401
