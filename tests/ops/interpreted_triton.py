"""The Triton kernels on the CPU. test_triton.py runs this file with TRITON_INTERPRET=1."""

import attention_cases
import pytest
import torch
import triton

from mpvit.errors import UserError
from mpvit.ops.msda import fused
from mpvit.ops.msda import op as attention
from mpvit.ops.msda import triton as backend

CONFIGS = {  # rows of a program: of all heads of some queries, or one head of neighbouring queries
    'heads': triton.Config({'ROWS': 16, 'NEIGHBOURS': False}),
    'neighbours': triton.Config({'ROWS': 4, 'NEIGHBOURS': True}),
}


@pytest.fixture(autouse=True)
def _poisoned():
    """What is not written is not a number: tensors made without values are filled so."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    assert torch.rand(1).half().new_empty(2, 2).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=CONFIGS)
def config(request, monkeypatch):
    """Both orders of rows; without it the first is taken."""
    for kernel in (backend._run_forward, backend._run_backward):
        monkeypatch.setattr(kernel, 'configs', [CONFIGS[request.param]])


def check_fused(case, dtype, numbers, **sizes):
    direction, *inputs = attention_cases.make_fused_inputs(case, dtype, numbers, **sizes)
    output, of_value, _, of_offsets, of_logits = attention_cases.fused_in_double(direction, *inputs)
    actual = backend.fused_forward(*inputs)
    attention_cases.assert_near('output', actual, output, dtype)
    # the gradient of the softmax starts from the output as it was stored, with its rounding
    logits = inputs[-1].double()
    lost = (direction.double() * (output - actual.double())).unflatten(-1, (logits.shape[2], -1))
    weights = logits.flatten(-2).softmax(-1).view_as(logits)
    of_logits = of_logits + weights * lost.sum(-1)[..., None, None]
    grads = backend.fused_backward(direction, actual, *inputs, torch.float32)
    for what, grad, expected, kind in zip(
        ('value', 'offsets', 'logits'),
        grads,
        (of_value, of_offsets, of_logits),
        (dtype, torch.float32, dtype),
        strict=True,
    ):
        attention_cases.assert_near(what, grad, expected, kind)
    return grads


@pytest.mark.parametrize('case', attention_cases.CASES)
def test_kernels_equal_the_reference(case):
    attention_cases.check(backend, case, torch.float32)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_kernels_take_low_precision(dtype):
    attention_cases.check(backend, 'channels 27', dtype)


@pytest.mark.parametrize('dtype', attention_cases.DTYPES, ids=str)
@pytest.mark.parametrize('numbers', [2, 4])
def test_fused_kernels_equal_the_reference(numbers, dtype):
    check_fused('partly outside', dtype, numbers, queries=5, heads=2)


def test_both_orders_of_rows(config):
    attention_cases.check(backend, 'partly outside', torch.float32)
    check_fused('partly outside', torch.float32, 2, queries=5, heads=2)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', attention_cases.DTYPES, ids=str)
@pytest.mark.parametrize('case', attention_cases.CASES)
@pytest.mark.parametrize('numbers', [0, 2, 4])
def test_every_option(config, numbers, case, dtype):
    if numbers:
        check_fused(case, dtype, numbers)
    else:
        attention_cases.check(backend, case, dtype)


@pytest.mark.parametrize(('case', 'points'), [('inside', 1), ('one channel', 3)])
def test_fused_kernels_with_other_numbers_of_points(case, points):
    check_fused(case, torch.float32, 2, points=points)


def test_large_logits_do_not_overflow():
    direction, *inputs = attention_cases.make_fused_inputs('one channel', torch.float32, 2)
    inputs[-1] += 200  # exp(200) is infinite in float32
    expected = attention_cases.fused_in_double(direction, *inputs)[0]
    attention_cases.assert_near('output', backend.fused_forward(*inputs), expected, torch.float32)


def test_gradient_of_offsets_has_the_dtype_that_is_asked_for():
    direction, *inputs = attention_cases.make_fused_inputs('one channel', torch.float16, 2)
    output = backend.fused_forward(*inputs)
    for dtype in (torch.float16, torch.float32):
        assert backend.fused_backward(direction, output, *inputs, dtype)[1].dtype == dtype


def test_sums_in_the_dtype_of_the_values(monkeypatch):
    """In float16; the interpreter has no atomic addition of bfloat16."""
    monkeypatch.setenv(backend.ATOMICS, 'native')
    direction, *inputs = attention_cases.make_inputs('inside', torch.float16)
    of_value, *_ = backend.backward(direction, *inputs)
    assert of_value.dtype == torch.float16
    double = [t if t is inputs[1] else t.double() for t in inputs]
    expected, *_ = attention_cases.reference.backward(direction.double(), *double)
    # every addition rounds: many times the error of one rounding, and far from another result
    error = (of_value - expected).abs().max() / expected.abs().max()
    assert error < 16 * torch.finfo(torch.float16).eps
    monkeypatch.setenv(backend.ATOMICS, 'bf16')
    with pytest.raises(UserError, match='valid are float32'):
        backend.backward(direction, *inputs)


def test_operator_runs_on_the_kernels(monkeypatch):
    monkeypatch.setenv(attention.VARIABLE, 'triton')
    direction, *inputs = attention_cases.make_inputs('inside', torch.bfloat16)
    for tensor in (inputs[0], inputs[2], inputs[3]):
        tensor.requires_grad_()
    attention.ms_deform_attn(*inputs).backward(direction)
    expected = backend.backward(direction, *(t.detach() for t in inputs))
    for tensor, grad in zip((inputs[0], inputs[2], inputs[3]), expected, strict=True):
        torch.testing.assert_close(tensor.grad, grad.to(tensor.dtype))


def test_fused_operator_runs_on_the_kernels(monkeypatch):
    dtype = torch.float16
    monkeypatch.setenv(attention.VARIABLE, 'triton')
    calls = []
    for name in ('fused_forward', 'fused_backward'):
        function = getattr(backend, name)
        monkeypatch.setattr(
            backend, name, lambda *args, f=function, n=name: (calls.append(n), f(*args))[1]
        )
    direction, *inputs = attention_cases.make_fused_inputs('one channel', dtype, 2)
    leaves = [inputs[0], *inputs[2:]]
    for leaf in leaves:
        leaf.requires_grad_()
    output = fused.attend(*inputs)
    actual = output, *torch.autograd.grad(output, leaves, direction)
    expected = attention_cases.fused_in_double(direction, *inputs)
    names = ('output', 'value', 'points', 'offsets', 'logits')
    kinds = (dtype, dtype, torch.float32, dtype, dtype)
    for what, a, b, kind in zip(names, actual, expected, kinds, strict=True):
        assert a.dtype == kind
        attention_cases.assert_near(what, a, b, kind)
    assert calls == ['fused_forward', 'fused_backward']


def test_locations_that_are_not_numbers_sample_nothing():
    _, value, shapes, locations, weights = attention_cases.make_inputs('inside', torch.float32)
    locations[:, 0] = torch.nan
    locations[:, 1] = torch.inf
    output = backend.forward(value, shapes, locations, weights)
    assert (output[:, :2] == 0).all()
    assert output[:, 2:].isfinite().all()
