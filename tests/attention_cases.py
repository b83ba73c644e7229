"""Inputs on which every backend of deformable attention must equal the reference."""

import torch

from mpvit.ops.msda import reference

CASES = {  # (H, W) of the levels, channels of a head, lowest and highest location
    'inside': ([(6, 8), (3, 4)], 8, (0.1, 0.9)),
    'partly outside': ([(6, 8), (3, 4)], 16, (-0.3, 1.3)),
    'all outside': ([(6, 8), (3, 4)], 4, (1.5, 3.0)),
    'one channel': ([(5, 3)], 1, (-0.1, 1.1)),
    'channels 27': ([(5, 3)], 27, (-0.1, 1.1)),
    'channels 36': ([(4, 4), (2, 2)], 36, (-0.1, 1.1)),
    'many levels, one of 1 x 1': ([(9, 2), (4, 4), (1, 3), (1, 1)], 8, (-0.2, 1.2)),
    'on borders and pixels': ([(8, 8), (4, 2)], 8, None),
    'not contiguous': ([(6, 8), (3, 4)], 8, (-0.1, 1.1)),
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def make_inputs(case, dtype, device='cpu', queries=7, heads=3, points=2):
    """Direction of the gradient, then the inputs of the operator, for a batch of two."""
    shapes, channels, between = CASES[case]
    generator = torch.Generator().manual_seed(0)
    positions = sum(h * w for h, w in shapes)
    places = (2, queries, heads, len(shapes), points, 2)
    value = torch.randn(2, heads, positions, channels, generator=generator).transpose(1, 2)
    if between is None:  # exact in any arithmetic: 0, 1/16, 1/8, ..., 1
        locations = torch.randint(0, 17, places, generator=generator) / 16
    else:
        low, high = between
        locations = low + (high - low) * torch.rand(places, generator=generator)
    weights = torch.rand(places[:-1], generator=generator)
    direction = torch.randn(2, queries, heads * channels, generator=generator)
    if case != 'not contiguous':
        value = value.contiguous()
    shapes = torch.tensor(shapes)
    tensors = (direction.to(dtype), value.to(dtype), shapes, locations, weights.to(dtype))
    return tuple(t.to(device) for t in tensors)


def check(backend, case, dtype, device='cpu'):
    """Hold output and gradients to the reference in float64, within the rounding of the dtype."""
    direction, value, shapes, locations, weights = make_inputs(case, dtype, device)
    exact = (value.double(), shapes, locations.double(), weights.double())
    actual = (
        backend.forward(value, shapes, locations, weights),
        *backend.backward(direction, value, shapes, locations, weights),
    )
    expected = (reference.forward(*exact), *reference.backward(direction.double(), *exact))
    dtypes = (dtype, dtype, torch.float32, dtype)
    for what, a, b, kind in zip(
        ('output', 'value', 'locations', 'weights'), actual, expected, dtypes, strict=True
    ):
        assert_near(what, a, b, kind)


def make_fused_inputs(case, dtype, numbers, device='cpu', queries=7, heads=3, points=2):
    """Direction of the gradient, then the inputs of the fused operator, for a batch of two.

    Reference points are float32, all else is of the dtype, as in mixed precision.
    """
    direction, value, shapes, *_ = make_inputs(case, dtype, device, queries, heads, points)
    generator = torch.Generator().manual_seed(1)
    levels = len(shapes)
    low, high = CASES[case][2] or (0, 1)
    reference = torch.rand(2, queries, levels, numbers, generator=generator)
    reference[..., :2] = low + (high - low) * reference[..., :2]
    offsets = torch.randn(2, queries, heads, levels, points, 2, generator=generator)
    logits = 2 * torch.randn(2, queries, heads, levels, points, generator=generator)
    rest = reference, offsets.to(dtype), logits.to(dtype)
    return (direction, value, shapes, *(t.to(device) for t in rest))


def fused_in_double(direction, value, shapes, reference_points, offsets, logits):
    """Output, then gradients of value, reference points, offsets and logits, by autograd.

    Written after "Deformable DETR", section 4.1 and appendix A.4, with nothing shared but the
    sampling of the reference.
    """
    leaves = [t.detach().double().requires_grad_() for t in (value, reference_points)]
    leaves += [t.detach().double().requires_grad_() for t in (offsets, logits)]
    value, points, offsets, logits = leaves
    if points.shape[-1] == 2:
        steps = 1 / shapes.flip(-1).double()[:, None]
    else:
        steps = points[:, :, None, :, None, 2:] / 2 / offsets.shape[-2]
    locations = points[:, :, None, :, None, :2] + offsets * steps
    weights = logits.flatten(-2).softmax(-1).view_as(logits)
    output = reference.forward(value, shapes, locations, weights)
    return output.detach(), *torch.autograd.grad(output, leaves, direction.double())


def assert_near(what, actual, expected, kind):
    """Equal within the rounding of a dtype, relative to the largest number."""
    step = max(2 * torch.finfo(kind).eps, 2e-6)
    torch.testing.assert_close(
        actual.double(),
        expected,
        rtol=step,
        atol=step * expected.abs().max().item(),
        msg=lambda message: f'{what}: {message}',
    )
