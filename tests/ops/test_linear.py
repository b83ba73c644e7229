"""Linear layers as convolutions: the same parameters, the same result."""

import pytest
import torch
from torch import nn

from mpvit.ops.linear import PointwiseLinear, use_pointwise_linear


@pytest.mark.parametrize('shape', [(24,), (7, 24), (2, 5, 24), (2, 300, 3, 24)])
@pytest.mark.parametrize('bias', [True, False])
def test_layer_equals_linear(shape, bias):
    torch.manual_seed(0)
    layer = nn.Linear(24, 10, bias=bias)
    inputs = torch.randn(shape)
    expected = layer(inputs)
    use_pointwise_linear(layer)
    output = layer(inputs)
    assert output.shape == expected.shape
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)


def test_only_plain_layers_change_and_names_stay():
    class Own(nn.Linear):
        pass

    model = nn.ModuleDict(
        dict(plain=nn.Linear(4, 4), own=Own(4, 4), attn=nn.MultiheadAttention(4, 2))
    )
    names = list(model.state_dict())
    use_pointwise_linear(model)
    assert type(model['plain']) is PointwiseLinear
    assert type(model['own']) is Own
    assert type(model['attn'].out_proj) is not PointwiseLinear
    assert list(model.state_dict()) == names


def test_rows_are_a_view_and_strided_inputs_work():
    layer = PointwiseLinear(16, 8)
    inputs = torch.randn(3, 16, 400).transpose(1, 2)
    expected = nn.functional.linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-6)
    assert layer(inputs.contiguous()).is_contiguous()
