"""Factorized attention on views equals the formula."""

import pytest
import torch

from mpvit.ops.lean import factorized
from mpvit.ops.lean.factorized import factorized_attention


def plain(qkv, positions, num_heads):
    query, key, value = (
        t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in qkv.chunk(3, dim=-1)
    )
    context = key.softmax(dim=2).transpose(2, 3) @ value
    attended = query.shape[-1] ** -0.5 * (query @ context)
    position = torch.cat(positions, dim=-1).unflatten(-1, (num_heads, -1)).transpose(1, 2)
    return (attended + query * position).transpose(1, 2).flatten(2)


@pytest.mark.parametrize('large', [True, False], ids=['by image', 'batched'])
@pytest.mark.parametrize('dims', [8, 16, 27], ids='{} channels a head'.format)
def test_output_and_gradients_equal_the_formula(dims, large, monkeypatch):
    monkeypatch.setattr(factorized, '_LARGE', 0 if large else 1 << 40)
    monkeypatch.setattr(
        factorized, 'product_dtype', lambda tensor: tensor.dtype
    )  # float64 is exacter
    torch.manual_seed(0)
    heads, channels = 8, 8 * dims
    qkv = torch.randn(2, 35, 3 * channels, dtype=torch.float64, requires_grad=True)
    positions = [
        torch.randn(2, 35, count * dims, dtype=torch.float64, requires_grad=True)
        for count in (2, 3, 3)
    ]
    inputs = [qkv, *positions]
    output, expected = factorized_attention(qkv, positions, heads), plain(qkv, positions, heads)
    torch.testing.assert_close(output, expected)
    grad = torch.randn_like(output)
    gradients = torch.autograd.grad(output, inputs, grad)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, inputs, grad), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_strided_gradients_are_taken(monkeypatch):
    monkeypatch.setattr(factorized, '_LARGE', 0)
    qkv = torch.randn(1, 6, 48, requires_grad=True)
    position = torch.randn(1, 6, 16)
    factorized_attention(qkv, [position], 2).sum(dim=1).sum().backward()  # an expanded gradient
    assert qkv.grad.isfinite().all()
