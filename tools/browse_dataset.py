"""Look at a dataset before and after augmentation: CONFIG [--data DIR] --out DIR."""

from _command import run

run(__file__)
