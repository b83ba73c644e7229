"""Convert a dataset to COCO format: python tools/convert_dataset.py DIR OUT."""

from _command import run

run(__file__)
