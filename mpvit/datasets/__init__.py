"""Datasets; importing it registers them in mmdet's `DATASETS`."""

from mpvit.datasets.coco import OfficialCocoDataset
from mpvit.datasets.toy_dataset import ToyDataset
from mpvit.datasets.transforms import ShortSideResize

__all__ = ['OfficialCocoDataset', 'ShortSideResize', 'ToyDataset']
