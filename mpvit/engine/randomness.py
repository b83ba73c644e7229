"""Random numbers of a training as a function of where it stands.

Every sample and every step seeds the generators by its place in the training. So nothing has to
be stored to resume, at any step, and it does not matter which worker loads a sample or what it
loaded before.
"""

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader

from mpvit.errors import UserError

Place = tuple[int, ...]
_SAMPLE, _STEP = 0, 1  # so that no sample has the place of a step


class Draw(NamedTuple):
    """A sample of a dataset that is asked for, and where in the training of a seed it is used."""

    index: Any
    seed: int
    place: Place


def seed_sample(seed: int, place: Place) -> None:
    """Seed what a pipeline draws from: Python's, NumPy's and PyTorch's generator on the CPU."""
    words = np.random.SeedSequence(seed, spawn_key=(_SAMPLE, *place)).generate_state(4)
    _seed_cpu(words)


def seed_step(seed: int, place: Place) -> None:
    """Seed what a training step draws from, the generator of the current GPU included."""
    words = np.random.SeedSequence(seed, spawn_key=(_STEP, *place)).generate_state(4)
    _seed_cpu(words)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(_integer(words))


def _seed_cpu(words: np.ndarray) -> None:
    # torch.manual_seed would also queue the seed for GPUs, with a stack trace, at every call
    torch.default_generator.manual_seed(_integer(words))
    random.seed(_integer(words))
    np.random.seed(words)


def _integer(words: np.ndarray) -> int:
    return int(words[0]) << 31 ^ int(words[1])


class SeededDataset:
    """A dataset whose samples depend on the place in the training that they are loaded for.

    Everything but loading a `Draw` is the dataset's own, attributes included.
    """

    _dataset: Any

    def __init__(self, dataset: Any) -> None:
        vars(self)['_dataset'] = dataset

    def __getitem__(self, item: Any) -> Any:
        """Load a sample: that of a `Draw`, or of an index as the dataset itself takes it."""
        if isinstance(item, Draw):
            seed_sample(item.seed, item.place)
            return self._dataset[item.index]
        return self._dataset[item]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        """The dataset's attribute."""
        if name.startswith('__') or name == '_dataset':  # copying and pickling look for these
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the dataset's attribute, such as ``pipeline``."""
        setattr(self._dataset, name, value)


class PlacedBatches:
    """The batches of an epoch, from any of them on, with the place of every sample.

    Args:
        batches: Batch sampler; its sampler must give the same order again for the same epoch.
    """

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self._seed, self._epoch, self._first = 0, 0, 0

    def seek(self, seed: int, epoch: int, first: int) -> None:
        """Say what the next iteration goes over: an epoch, from 0, from batch ``first`` on.

        Batches before it are passed over without being loaded.
        """
        self._seed, self._epoch, self._first = seed, epoch, first

    def __iter__(self) -> Iterator[list[Draw]]:
        """Go over the batches."""
        rank = get_rank()
        for number, batch in islice(enumerate(self._batches), self._first, None):
            yield [
                Draw(index, self._seed, (self._epoch, rank, number, place))
                for place, index in enumerate(batch)
            ]

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        """The batch sampler's attribute."""
        if name.startswith('__') or name == '_batches':
            raise AttributeError(name)
        return getattr(self._batches, name)


def place_samples(loader: DataLoader) -> PlacedBatches:
    """Make the samples of a dataloader depend on their place in the training; give its batches.

    Raises:
        UserError: The dataloader does not make batches, so there is nothing to count.
    """
    if loader.batch_sampler is None:
        raise UserError(
            'train_dataloader makes no batches; set batch_size or batch_sampler, or train with '
            'train_cfg.type=EpochBasedTrainLoop, which cannot resume inside an epoch'
        )
    if isinstance(loader.batch_sampler, PlacedBatches):  # of an earlier loop
        return loader.batch_sampler
    batches = PlacedBatches(loader.batch_sampler)
    # a DataLoader refuses assignments once it is built, and mmengine builds it in one go
    vars(loader).update(dataset=SeededDataset(loader.dataset), batch_sampler=batches)
    return batches
