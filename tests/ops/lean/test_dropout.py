"""Dropout without a stored mask: the same law, gradients and seeds as PyTorch's."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mpvit.ops.lean.dropout import AVAILABLE, add_dropout, dropout_product, relu_dropout

SHAPE = (300, 700)  # more elements than one thread takes
pytestmark = pytest.mark.skipif(not AVAILABLE, reason='Numba is not installed')


def test_relu_dropout_drops_and_scales():
    torch.manual_seed(0)
    inputs = torch.randn(SHAPE)
    output = relu_dropout(inputs.clone(), 0.1)
    kept = output != 0
    torch.testing.assert_close(output[kept], inputs[kept] / 0.9)
    assert (inputs[kept] > 0).all()
    share = kept.sum() / (inputs > 0).sum()
    assert share == pytest.approx(0.9, abs=0.005)  # 5 standard deviations


def test_relu_dropout_keeps_nan():
    output = relu_dropout(torch.full((1000,), torch.nan), 0.1)
    assert output.isnan().float().mean() > 0.8


def test_add_dropout_drops_and_scales():
    identity, inputs = torch.randn(SHAPE), torch.rand(SHAPE) + 1
    output = add_dropout(identity, inputs.clone(), 0.25, training=True)
    kept = output != identity
    torch.testing.assert_close(output, identity + kept * inputs / 0.75)
    assert kept.float().mean() == pytest.approx(0.75, abs=0.005)


def test_gradients_go_through_what_was_kept():
    torch.manual_seed(0)
    identity, inputs, grad = (torch.randn(SHAPE, requires_grad=True) for _ in range(3))
    output = add_dropout(identity, inputs * 1, 0.2, training=True)
    kept = output != identity
    output.backward(grad.detach())
    torch.testing.assert_close(identity.grad, grad.detach())
    torch.testing.assert_close(inputs.grad, kept * grad.detach() / 0.8)
    inputs.grad = None
    output = relu_dropout(inputs * 1, 0.2)
    output.backward(grad.detach())
    torch.testing.assert_close(inputs.grad, (output != 0) * grad.detach() / 0.8)


def test_the_seed_decides_whatever_the_threads():
    def draw(seed, threads):
        torch.manual_seed(seed)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return [add_dropout(torch.zeros(SHAPE), torch.ones(SHAPE), 0.5, True) for _ in '12']
        finally:
            torch.set_num_threads(before)

    first, second = draw(7, 1)
    again, _ = draw(7, 2)
    other, _ = draw(8, 1)
    assert first.equal(again)
    for different in (second, other):
        agreement = ((first > 0) == (different > 0)).float().mean()
        assert agreement == pytest.approx(0.5, abs=0.01)


LOW = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize('dtype', LOW, ids=str)
def test_lower_precision_drops_the_same_and_rounds(dtype):
    """Of the same seed, forward and backward: what float32 gives of these numbers, rounded."""
    numbers = [torch.randn(SHAPE).to(dtype) for _ in range(3)]

    def compute(kind):
        identity, inputs, grad = (t.to(kind).clone() for t in numbers)
        leaves = identity.requires_grad_(), inputs.requires_grad_()
        torch.manual_seed(3)
        added = add_dropout(identity, inputs * 1, 0.2, training=True)
        relu = relu_dropout(inputs * 1, 0.2)
        results = [added, relu, *torch.autograd.grad([added, relu], leaves, [grad, grad])]
        assert {t.dtype for t in results} == {kind}
        return [(t.detach() == 0, t.detach()) for t in results]

    for (zero, ours), (expected_zero, expected) in zip(
        compute(dtype), compute(torch.float32), strict=True
    ):
        assert (zero == expected_zero).float().mean() > 0.999  # sums that round to 0
        torch.testing.assert_close(ours, expected.to(dtype))


@pytest.mark.parametrize('dtype', LOW, ids=str)
def test_sum_has_the_wider_type_and_each_gradient_its_own(dtype):
    identity = torch.zeros(SHAPE, requires_grad=True)
    inputs = torch.ones(SHAPE, dtype=dtype, requires_grad=True)
    torch.manual_seed(0)
    output = add_dropout(identity, inputs * 1, 0.5, training=True)
    assert output.dtype == torch.float32
    assert set(output.unique().tolist()) == {0, 2}
    output.backward(torch.full(SHAPE, 3.0))
    assert inputs.grad.dtype == dtype
    torch.testing.assert_close(inputs.grad.float(), output.detach() * 3)
    torch.testing.assert_close(identity.grad, torch.full(SHAPE, 3.0))


def test_checkpointing_draws_the_same_again():
    inputs = torch.randn(SHAPE, requires_grad=True)

    def work(inputs):
        return add_dropout(inputs, inputs.sin() * 1, 0.3, True) ** 2

    torch.manual_seed(0)
    work(inputs).sum().backward()
    expected, inputs.grad = inputs.grad, None
    torch.manual_seed(0)
    checkpoint(work, inputs, use_reentrant=False).sum().backward()
    torch.testing.assert_close(inputs.grad, expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64])
def test_other_types_and_layouts_are_left_to_torch(dtype):
    torch.manual_seed(0)
    identity, inputs = torch.zeros(200, 300, dtype=dtype), torch.ones(300, 200, dtype=dtype).t()
    output = add_dropout(identity, inputs, 0.5, training=True)
    assert set(output.unique().tolist()) == {0, 2}
    assert add_dropout(identity, inputs, 0.5, training=False).equal(inputs)


def test_shapes_that_broadcast_are_left_to_torch():
    output = add_dropout(torch.zeros(1, 300), torch.ones(200, 300), 0.5, training=True)
    assert output.shape == (200, 300)
    assert set(output.unique().tolist()) == {0, 2}


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_product_of_dropped_weights(dtype):
    torch.manual_seed(0)
    weights = torch.rand(3, 40, 50, requires_grad=True)
    value = torch.randn(3, 50, 8).to(dtype).requires_grad_()
    torch.manual_seed(1)
    dropped = dropout_product(weights, torch.eye(50).expand(3, 50, 50), 0.3).detach()
    kept = dropped != 0
    torch.testing.assert_close(dropped, kept * weights / 0.7)
    assert abs(float(kept.float().mean()) - 0.7) < 0.03
    torch.manual_seed(1)
    output = dropout_product(weights, value, 0.3)
    assert output.dtype == dtype
    expected = (kept * weights / 0.7).to(dtype) @ value
    grad = torch.randn_like(output)
    results = [torch.autograd.grad(result, [weights, value], grad) for result in (output, expected)]
    for ours, theirs in zip((output, *results[0]), (expected, *results[1]), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs)


def test_everything_may_be_dropped():
    identity, inputs = torch.ones(20, 20), torch.rand(20, 20, requires_grad=True)
    outputs = [
        relu_dropout(inputs * 1, 1.0),
        add_dropout(identity, inputs * 1, 1.0, training=True) - identity,
        dropout_product(inputs, identity, 1.0),
    ]
    for output in outputs:
        assert not output.any()
        (grad,) = torch.autograd.grad(output.sum(), inputs)
        assert not grad.any()
