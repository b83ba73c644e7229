"""Shared fixtures."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest
import torch
from runs import leave_configs_as_they_are

import mpvit.register  # noqa: F401  (makes mmdet importable for the tests that import it first)

os.environ.setdefault('OMP_NUM_THREADS', '2')
leave_configs_as_they_are()
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def root() -> Path:
    """Folder of the repository."""
    return ROOT


@pytest.fixture(autouse=True)
def _signals():
    """Put back what a paused training leaves, which ignores signals: processes inherit that."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope='session')
def toy(tmp_path_factory):
    """A toy dataset of a few images, drawn once."""
    from mpvit.datasets.toy import ToySpec, write_toy_dataset

    folder = tmp_path_factory.mktemp('data') / 'toy'
    return write_toy_dataset(folder, ToySpec(train_images=8, val_images=6, empty=0.3))


@pytest.fixture(scope='session')
def tiny(root, toy):
    """Arguments that name the tiny config on the session's toy dataset."""
    places = [f'{split}_dataloader.dataset.data_root={toy}' for split in ('train', 'val', 'test')]
    truth = f'{toy}/annotations/instances_val2017.json'
    places += [f'{split}_evaluator.ann_file={truth}' for split in ('val', 'test')]
    return root / 'tests' / 'data' / 'tiny.py', places


@pytest.fixture(scope='session')
def gpu_table(root):
    """The module benchmarks/gpu_table.py."""
    spec = importlib.util.spec_from_file_location('gpu_table', root / 'benchmarks/gpu_table.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_collection_modifyitems(items):
    """Tests marked gpu say why they do not run."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker('gpu'):
                item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))
