"""The command that writes datasets to try things on."""

import shlex

import pytest

from mpvit.datasets import toy as toy_module
from mpvit.datasets.toy import ToySpec


@pytest.fixture
def small(monkeypatch):
    """The toy dataset with a few images."""
    spec = ToySpec(train_images=3, val_images=2)
    monkeypatch.setattr(toy_module, 'ToySpec', lambda: spec)


def test_the_toy_dataset_and_what_to_do_next(small, tool, tmp_path):
    root = tmp_path / 'my toy'
    lines = tool('data', 'toy', root).out.splitlines()
    assert lines[0] == f'written to {root}'
    assert lines[1].startswith('train: 3 images, ')
    assert lines[2].startswith('val: 2 images, ')
    command, _, rest = lines[3].partition(': ')[2].partition(' browse_dataset ')
    assert command == 'mpvit'
    out = ['--out', tmp_path / 'sheets', '--count', 1]
    drawn = tool('browse_dataset', *shlex.split(rest), *out).out
    assert str(tmp_path / 'sheets' / 'train_01.png') in drawn
    again = tool('data', 'toy', root).out.splitlines()
    assert again == [f'{root} holds the dataset already', *lines[1:]]


def test_what_is_refused(refused, tool, tmp_path):
    (tmp_path / 'photo.jpg').touch()
    for name in ('toy', 'trees'):
        refused('data', name, tmp_path, says=[str(tmp_path), 'other files'])
    refused('data', 'trees', tmp_path / 'photo.jpg', says=['photo.jpg', 'is no folder'])
    refused('data', 'flowers', says=["'toy', 'trees'"], status=2)
