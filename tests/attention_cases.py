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
        step = max(2 * torch.finfo(kind).eps, 2e-6)
        largest = b.abs().max().item()
        torch.testing.assert_close(
            a.double(), b, rtol=step, atol=step * largest, msg=lambda m, w=what: f'{w}: {m}'
        )
