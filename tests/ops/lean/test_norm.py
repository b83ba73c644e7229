"""Batch norm and Hardswish in one function: the same result, gradients and statistics."""

import copy

import pytest
import torch
from torch import nn

from mpvit.ops.lean.norm import norm_hardswish


def plain(inputs, norm):
    return nn.functional.hardswish(norm(inputs))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_equals_the_modules(training, dtype):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(12).train(training)
    nn.init.normal_(norm.weight, 2)
    nn.init.normal_(norm.running_mean)
    maps = (3 * torch.randn(2, 12, 9, 7) + 1).to(dtype, memory_format=torch.channels_last)
    results = []
    for function in (norm_hardswish, plain):
        copied, inputs = copy.deepcopy(norm), maps.clone().requires_grad_()
        output = function(inputs, copied)
        grads = torch.autograd.grad(output.float().sin().sum(), [inputs, *copied.parameters()])
        assert copied.num_batches_tracked == training
        results.append([output, *grads, copied.running_mean, copied.running_var])
    tolerance = dict(rtol=1e-4, atol=1e-4) if dtype == torch.float32 else dict(rtol=0.02, atol=0.05)
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_only_the_input_is_kept():
    norm, inputs = nn.BatchNorm2d(16), torch.randn(1, 16, 32, 32, requires_grad=True)
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        norm_hardswish(inputs, norm)
    assert [size for size in kept.values() if size > 16] == [inputs.numel()]


@pytest.mark.parametrize(
    'norm',
    [
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.BatchNorm2d(4, momentum=None),
        nn.GroupNorm(2, 4),
    ],
    ids=str,
)
def test_other_norms_are_computed_as_ever(norm):
    inputs = torch.randn(2, 4, 5, 5)
    assert norm_hardswish(inputs, copy.deepcopy(norm)).equal(plain(inputs, norm))
