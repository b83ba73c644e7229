"""Our forward pass of mmcv's attention module equals mmcv's, in value and gradient."""

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention

from mpvit.ops import mmcv_bridge
from mpvit.ops.msda import module

SHAPES = torch.tensor([[6, 8], [3, 4]])


def make_attention(batch_first=True, **kwargs):
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(
        embed_dims=32, num_heads=4, num_levels=2, num_points=3, batch_first=batch_first, **kwargs
    ).double()
    for linear in (attention.sampling_offsets, attention.attention_weights):
        torch.nn.init.normal_(linear.weight, std=0.3)
    return attention.eval()


def make_inputs(numbers=2, batch_first=True, with_value=True):
    torch.manual_seed(1)
    queries = 10 if with_value else 60
    inputs = dict(
        query=torch.randn(2, queries, 32),
        query_pos=torch.randn(2, queries, 32),
        value=torch.randn(2, 60, 32) if with_value else None,
    )
    inputs = {
        name: tensor if batch_first or tensor is None else tensor.transpose(0, 1).contiguous()
        for name, tensor in inputs.items()
    }
    inputs['reference_points'] = torch.rand(2, queries, 2, numbers)
    inputs = {
        name: None if tensor is None else tensor.double().requires_grad_()
        for name, tensor in inputs.items()
    }
    mask = torch.zeros(2, 60, dtype=torch.bool)
    mask[1, 40:] = True
    return dict(
        inputs,
        key_padding_mask=mask,
        spatial_shapes=SHAPES,
        level_start_index=torch.tensor([0, 48]),
    )


@pytest.mark.parametrize('with_value', [True, False])
@pytest.mark.parametrize('batch_first', [True, False])
@pytest.mark.parametrize('numbers', [2, 4])
def test_forward_is_mmcvs_in_value_and_gradient(numbers, batch_first, with_value):
    attention = make_attention(batch_first)
    inputs = make_inputs(numbers, batch_first, with_value)
    leaves = [t for t in inputs.values() if t is not None and t.requires_grad]
    leaves += attention.parameters()
    assert type(attention).forward is module.forward
    ours = attention(**inputs)
    with mmcv_bridge.stock_attention():
        assert type(attention).forward is not module.forward
        stock = attention(**inputs)
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-13)
    direction = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, leaves, direction),
        torch.autograd.grad(stock, leaves, direction),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_locations_keep_the_precision_of_the_reference_points():
    points, offsets = torch.rand(1, 5, 2, 2), torch.randn(1, 5, 4, 2, 3, 2).bfloat16()
    locations = module.sampling_locations(points, offsets, SHAPES)
    sizes = SHAPES.flip(1).double()[:, None]
    expected = points.double()[:, :, None, :, None] + offsets.double() / sizes
    assert locations.dtype == torch.float32
    torch.testing.assert_close(locations.double(), expected, rtol=0, atol=1e-6)


def test_locations_of_a_double_model_are_double_in_its_encoder_too():
    """The encoder's reference points are float32 in every model; so are they in mmcv's sum."""
    points, offsets = torch.rand(1, 5, 2, 2), torch.randn(1, 5, 4, 2, 3, 2).double()
    locations = module.sampling_locations(points, offsets, SHAPES)
    expected = points[:, :, None, :, None] + offsets / SHAPES.flip(1)[:, None]
    assert locations.dtype == torch.float64
    torch.testing.assert_close(locations, expected, rtol=0, atol=1e-15)
    boxes = torch.rand(1, 5, 2, 4)
    locations = module.sampling_locations(boxes, offsets, SHAPES)
    halves = boxes[:, :, None, :, None, 2:] * 0.5 / 3
    torch.testing.assert_close(
        locations, boxes[:, :, None, :, None, :2] + offsets * halves.double(), rtol=0, atol=1e-7
    )
    assert locations.dtype == torch.float64


def test_errors_name_what_is_wrong():
    attention, inputs = make_attention(), make_inputs()
    with pytest.raises(ValueError, match='needs reference_points'):
        attention(**dict(inputs, reference_points=None))
    with pytest.raises(ValueError, match='2 or 4 numbers, not 3'):
        attention(**dict(inputs, reference_points=torch.rand(2, 10, 2, 3).double()))
