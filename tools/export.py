"""Write a detector as ONNX or OpenVINO: python tools/export.py CONFIG CHECKPOINT --format onnx."""

from _command import run

run(__file__)
