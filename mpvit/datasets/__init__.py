"""Datasets; importing it registers them in mmdet's `DATASETS`."""

from mpvit.datasets.toy_dataset import ToyDataset

__all__ = ['ToyDataset']
