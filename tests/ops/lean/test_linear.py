"""Linear layers as convolutions: the same parameters, the same result."""

import copy

import pytest
import torch
from torch import nn

from mpvit.ops.lean import linear
from mpvit.ops.lean.linear import (
    PointwiseLinear,
    linear_relu,
    norm_linear,
    norm_mlp_gelu,
    product_dtype,
    sum_linears,
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


def test_layers_of_a_sum_equal_the_modules():
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(24, 10), nn.Linear(24, 6)])
    second = torch.randn(2, 30, 24)
    hold_equal(
        lambda inputs: torch.cat(sum_linears(inputs, second, layers), dim=-1),
        lambda inputs: torch.cat([layer(inputs + second) for layer in layers], dim=-1),
        torch.randn(2, 30, 24),
        [*layers.parameters()],
    )
    first = torch.randn(2, 30, 24, requires_grad=True)
    second.requires_grad_()
    output = sum(o.sum() for o in sum_linears(first, second, layers))
    of_first, of_second = torch.autograd.grad(output, [first, second])
    assert of_first.equal(of_second)


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


def test_other_types_are_computed_as_ever():
    layer = PointwiseLinear(16, 8).double()
    inputs = torch.randn(4, 16, dtype=torch.float64)
    assert product_dtype(inputs) is None
    assert layer(inputs).equal(nn.functional.linear(inputs, layer.weight, layer.bias))


def test_weights_of_another_type_are_refused_as_ever():
    with pytest.raises(RuntimeError, match='dtype'):
        PointwiseLinear(16, 8)(torch.randn(4, 16).bfloat16())


def chain(layers, inputs):
    norm, expand, contract, last = layers
    inputs = inputs + norm_mlp_gelu(inputs, norm, expand, contract)
    return linear_relu(inputs, last) + norm_linear(inputs, norm, last)


def with_gradients(layers, inputs):
    inputs = inputs.detach().requires_grad_()
    output = chain(layers, inputs)
    leaves = [inputs, *layers.parameters()]
    gradients = torch.autograd.grad(output.float().sin().sum(), leaves)
    return [output.detach(), *gradients]


@pytest.fixture
def low_precision():
    """Layers, inputs and a function that says how far results are from those in float32."""
    torch.manual_seed(0)
    sizes = (24, 96), (96, 24), (24, 8)
    layers = nn.ModuleList([nn.LayerNorm(24), *(PointwiseLinear(*size) for size in sizes)])
    inputs = torch.randn(2, 300, 24)
    exact = with_gradients(layers, inputs)

    def errors(results):
        assert len(results) <= len(exact)
        pairs = zip(results, exact, strict=False)
        return [float((a.float() - b).norm() / b.norm()) for a, b in pairs]

    return layers, inputs, errors


def plainly(function, *args):
    """The result without the layers of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, 'product_dtype', lambda tensor: None)
        return function(*args)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_is_as_exact_as_the_modules(low_precision, dtype):
    layers, inputs, errors = low_precision
    layers, inputs = layers.to(dtype), inputs.to(dtype)
    for function in (with_gradients, torch.no_grad()(lambda *a: [chain(*a)])):
        ours, plain = function(layers, inputs), plainly(function, layers, inputs)
        assert all(result.dtype == dtype for result in ours)
        for error, other in zip(errors(ours), errors(plain), strict=True):
            assert error < 1.3 * other


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_autocast_is_as_exact_as_the_modules(low_precision, dtype):
    """Tokens of float32 or bfloat16, weights and their gradients in float32."""
    layers, inputs, errors = low_precision
    inputs = inputs.to(dtype)
    for function in (with_gradients, torch.no_grad()(lambda *a: [chain(*a)])):
        with torch.autocast('cpu', torch.bfloat16):
            ours, plain = function(layers, inputs), plainly(function, layers, inputs)
        assert [a.dtype for a in ours] == [b.dtype for b in plain]
        for error, other in zip(errors(ours), errors(plain), strict=True):
            assert error < 1.3 * other
