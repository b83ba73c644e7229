"""Linear layers as convolutions: the same parameters, the same result."""

import copy

import pytest
import torch
from torch import nn

from mpvit.ops.lean.linear import (
    PointwiseLinear,
    linear_relu,
    norm_linear,
    norm_mlp_gelu,
)


def hold_equal(compute, plain, inputs, parameters):
    """Hold a function to another one, in value and in the gradients of inputs and parameters."""
    inputs.requires_grad_()
    results = []
    for function in (compute, plain):
        output = function(inputs)
        gradients = torch.autograd.grad(output.sin().sum(), [inputs, *parameters])
        results.append([output, *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('shape', [(24,), (7, 24), (2, 5, 24), (2, 300, 3, 24)])
@pytest.mark.parametrize('bias', [True, False])
def test_layer_equals_linear(shape, bias):
    torch.manual_seed(0)
    layer = nn.Linear(24, 10, bias=bias)
    lean = copy.copy(layer)  # with the same parameters
    lean.__class__ = PointwiseLinear
    hold_equal(lean, layer, torch.randn(shape), [*layer.parameters()])


def test_rows_are_a_view_and_strided_inputs_work():
    layer = PointwiseLinear(16, 8)
    inputs = torch.randn(3, 16, 400).transpose(1, 2)
    expected = nn.functional.linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-6)
    assert layer(inputs.contiguous()).is_contiguous()


def test_output_may_be_changed_in_place():
    layer = PointwiseLinear(8, 6)
    inputs = torch.randn(5, 8, requires_grad=True)
    layer(inputs).mul_(2).sum().backward()
    torch.testing.assert_close(inputs.grad, 2 * layer.weight.sum(0).expand(5, 8))


def test_norm_and_linear_equal_the_modules():
    torch.manual_seed(0)
    norm, layer = nn.LayerNorm(24), nn.Linear(24, 10)
    nn.init.normal_(norm.weight)
    hold_equal(
        lambda inputs: norm_linear(inputs, norm, layer),
        lambda inputs: layer(norm(inputs)),
        torch.randn(2, 30, 24),
        [*norm.parameters(), *layer.parameters()],
    )


def test_mlp_equals_the_modules():
    torch.manual_seed(0)
    norm, expand, contract = nn.LayerNorm(24), nn.Linear(24, 96), nn.Linear(96, 24)
    nn.init.normal_(norm.weight)
    inputs = torch.randn(2, 30, 24)

    def compute(inputs):
        return norm_mlp_gelu(inputs, norm, expand, contract)

    def plain(inputs):
        return contract(nn.functional.gelu(expand(norm(inputs))))

    parameters = nn.ModuleList([norm, expand, contract]).parameters()
    hold_equal(compute, plain, inputs, [*parameters])
    with torch.no_grad():  # the activation within the product
        torch.testing.assert_close(compute(inputs), plain(inputs), rtol=1e-5, atol=1e-6)


def test_relu_equals_the_modules():
    layer, inputs = nn.Linear(24, 96), torch.randn(2, 30, 24)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(linear_relu(inputs, layer), layer(inputs).relu())


def test_mlp_keeps_no_more_than_it_needs():
    """Input and hidden tokens before GELU; not the normalised input, nor what GELU gives."""
    norm, expand, contract = nn.LayerNorm(24), nn.Linear(24, 96), nn.Linear(96, 24)
    inputs = torch.randn(1, 1000, 24, requires_grad=True)
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        norm_mlp_gelu(inputs, norm, expand, contract)
    assert sorted(size for size in kept.values() if size > 5000) == [24_000, 96_000]


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_other_types_are_computed_as_ever(dtype):
    layer = PointwiseLinear(16, 8).to(dtype)
    inputs = torch.randn(4, 16, dtype=dtype)
    assert layer(inputs).equal(nn.functional.linear(inputs, layer.weight, layer.bias))
