"""The Triton kernels on the CPU. test_triton.py runs this file with TRITON_INTERPRET=1."""

import attention_cases
import pytest
import torch

from mpvit.ops.msda import op as attention
from mpvit.ops.msda import triton as backend


@pytest.mark.parametrize('dtype', attention_cases.DTYPES, ids=str)
@pytest.mark.parametrize('case', attention_cases.CASES)
def test_kernels_equal_the_reference(case, dtype):
    attention_cases.check(backend, case, dtype)


def test_operator_runs_on_the_kernels(monkeypatch):
    monkeypatch.setenv(attention.VARIABLE, 'triton')
    direction, *inputs = attention_cases.make_inputs('inside', torch.bfloat16)
    for tensor in (inputs[0], inputs[2], inputs[3]):
        tensor.requires_grad_()
    attention.ms_deform_attn(*inputs).backward(direction)
    expected = backend.backward(direction, *(t.detach() for t in inputs))
    for tensor, grad in zip((inputs[0], inputs[2], inputs[3]), expected, strict=True):
        torch.testing.assert_close(tensor.grad, grad.to(tensor.dtype))


def test_locations_that_are_not_numbers_sample_nothing():
    _, value, shapes, locations, weights = attention_cases.make_inputs('inside', torch.float32)
    locations[:, 0] = torch.nan
    locations[:, 1] = torch.inf
    output = backend.forward(value, shapes, locations, weights)
    assert (output[:, :2] == 0).all()
    assert output[:, 2:].isfinite().all()
