"""A linear layer of factorized attention on views equals the formula."""

import pytest
import torch
from torch import nn

from mpvit.ops.lean import factorized, linear
from mpvit.ops.lean.factorized import attention_linear


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
    for module in (factorized, linear):  # float64 is exacter
        monkeypatch.setattr(module, 'product_dtype', lambda tensor: tensor.dtype)
    torch.manual_seed(0)
    heads, channels = 8, 8 * dims
    qkv = torch.randn(2, 35, 3 * channels, dtype=torch.float64, requires_grad=True)
    positions = [
        torch.randn(2, 35, count * dims, dtype=torch.float64, requires_grad=True)
        for count in (2, 3, 3)
    ]
    layer = nn.Linear(channels, 9, dtype=torch.float64)
    inputs = [qkv, *positions, *layer.parameters()]
    output = attention_linear(qkv, positions, heads, layer)
    expected = layer(plain(qkv, positions, heads))
    torch.testing.assert_close(output, expected)
    grad = torch.randn_like(output)
    gradients = torch.autograd.grad(output, inputs, grad)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, inputs, grad), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_attention_itself_is_not_kept(monkeypatch):
    monkeypatch.setattr(factorized, '_LARGE', 0)
    qkv = torch.randn(2, 35, 48, requires_grad=True)
    positions = [torch.randn(2, 35, 8) for _ in range(2)]
    layer, shapes = nn.Linear(16, 5), []

    def keep(tensor):
        shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attention_linear(qkv, positions, 2, layer)
    assert sorted(shapes) == [(2, 35, 8), (2, 35, 8), (2, 35, 48), (5, 16)]


def test_strided_gradients_are_taken(monkeypatch):
    monkeypatch.setattr(factorized, '_LARGE', 0)
    qkv = torch.randn(1, 6, 48, requires_grad=True)
    output = attention_linear(qkv, [torch.randn(1, 6, 16)], 2, nn.Linear(16, 16))
    expanded = torch.randn(1, 1, 16).expand(1, 6, 16)
    results = [
        torch.autograd.grad(output, qkv, grad, retain_graph=True)[0]
        for grad in (expanded, expanded.clone())
    ]
    assert torch.equal(*results)
