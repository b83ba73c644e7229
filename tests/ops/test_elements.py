"""What kernels read and write in 16 bits is what torch converts."""

import pytest
import torch

pytest.importorskip('numba')
from mpvit.ops.elements import DTYPES, flat, load, store
from mpvit.ops.threads import compiled


@compiled
def copy(source, target):
    for i in range(source.size):
        store(target, i, load(source, i))


def converted(tensor, dtype):
    target = torch.empty_like(tensor, dtype=dtype)
    copy(flat(tensor), flat(target))
    return target


@pytest.mark.parametrize('dtype', DTYPES[1:], ids=str)
def test_every_number_of_16_bits_is_read(dtype):
    numbers = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)
    found, expected = converted(numbers, torch.float32), numbers.float()
    assert found.isnan().equal(expected.isnan())
    assert found.nan_to_num(7.0).equal(expected.nan_to_num(7.0))


@pytest.mark.parametrize('dtype', DTYPES[1:], ids=str)
def test_rounding_is_torchs(dtype):
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(1 << 31), 1 << 31, (100_000,), generator=generator)
    halfway = torch.arange(-(1 << 15), 1 << 15) * (1 << 16) + (1 << 15)
    numbers = torch.cat([bits, halfway, halfway // 8]).to(torch.int32).view(torch.float32)
    numbers = torch.cat([numbers, torch.randn(10_000, generator=generator) * 1000])
    found, expected = converted(numbers, dtype), numbers.to(dtype)
    assert found.isnan().equal(expected.isnan())
    assert found.nan_to_num(7.0).equal(expected.nan_to_num(7.0))
