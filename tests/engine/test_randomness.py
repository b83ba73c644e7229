"""Random numbers that depend on the place in a training alone."""

import pickle
import random

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import BaseDataset, ConcatDataset, DefaultSampler, RepeatDataset
from torch.utils.data import BatchSampler, DataLoader

from mpvit.engine.randomness import Draw, SeededDataset, place_samples, seed_sample, seed_step
from mpvit.errors import UserError


def drawn():
    """A number of each generator."""
    return random.random(), float(np.random.rand()), float(torch.rand(()))


class Noise(BaseDataset):
    """Samples of random numbers; shapes alternate for samplers by aspect ratio."""

    METAINFO = dict(classes=('a',))

    def load_data_list(self):
        return [dict(number=i, width=1 + i % 3, height=2) for i in range(11)]

    def __getitem__(self, index):
        return (self.get_data_info(index)['number'], *drawn())


def loader_of(dataset, batch_sampler=BatchSampler, **settings):
    batches = batch_sampler(DefaultSampler(dataset, seed=0), batch_size=2, drop_last=False)
    return DataLoader(dataset, batch_sampler=batches, collate_fn=list, **settings)


def epoch_of(loader, batches, epoch, first=0):
    loader.batch_sampler.sampler.set_epoch(epoch)
    batches.seek(7, epoch, first)
    return list(loader)


@pytest.mark.parametrize('sampler', [BatchSampler, AspectRatioBatchSampler])
@pytest.mark.parametrize(
    'workers',
    [
        {},
        dict(num_workers=2),
        dict(num_workers=2, persistent_workers=True),
    ],
    ids=['none', 'fresh', 'persistent'],
)
def test_epochs_from_any_batch(sampler, workers):
    plain = loader_of(Noise(), sampler)
    reference = [epoch_of(plain, place_samples(plain), epoch) for epoch in (0, 1)]
    numbers = [sample[1:] for epoch in reference for batch in epoch for sample in batch]
    assert len(set(numbers)) == 22  # also the same image in another epoch
    loader = loader_of(Noise(), sampler, **workers)
    batches = place_samples(loader)
    assert len(loader) == 6
    assert epoch_of(loader, batches, 0, first=4) == reference[0][4:]
    assert epoch_of(loader, batches, 1) == reference[1]
    assert epoch_of(loader, batches, 0) == reference[0]


@pytest.mark.parametrize('wrap', [lambda d: RepeatDataset(d, 2), lambda d: ConcatDataset([d, d])])
def test_datasets_inside_others(wrap):
    loader = loader_of(wrap(Noise()))
    batches = place_samples(loader)
    whole = epoch_of(loader, batches, 0)
    assert epoch_of(loader, batches, 0, first=3) == whole[3:]


def test_ranks_and_seeds_differ(monkeypatch):
    loader = loader_of(Noise())
    batches = place_samples(loader)
    first = epoch_of(loader, batches, 0)
    monkeypatch.setattr('mpvit.engine.randomness.get_rank', lambda: 1)
    assert {s[1] for b in epoch_of(loader, batches, 0) for s in b}.isdisjoint(
        s[1] for b in first for s in b
    )


def test_all_generators_are_seeded():
    seed_sample(1, (2, 3))
    one = drawn()
    seed_sample(1, (2, 3))
    assert drawn() == one
    others = []
    for seed, place in ((2, (2, 3)), (1, (3, 2)), (1, (2,)), (1, (2, 3, 0))):
        seed_sample(seed, place)
        others.append(drawn())
    seed_step(1, (2, 3))
    others.append(drawn())
    assert len({*one}.union(*others)) == 18


def test_the_dataset_stays_what_it_was():
    dataset = SeededDataset(Noise())
    assert dataset.metainfo == dict(classes=('a',))
    assert len(dataset) == 11
    assert dataset[3][0] == 3
    assert not hasattr(dataset, '__getitems__')
    dataset.pipeline = 'second'  # as hooks do that change the augmentation
    assert dataset._dataset.pipeline == 'second'
    again = pickle.loads(pickle.dumps(dataset))
    assert again[Draw(3, 1, (2,))] == dataset[Draw(3, 1, (2,))]


def test_loaders_without_batches_are_refused():
    with pytest.raises(UserError, match='makes no batches'):
        place_samples(DataLoader(Noise(), batch_size=None))
