"""The fused operator on the CPU, where backends of locations and weights serve it.

By the Triton kernels: interpreted_triton.py. On a GPU: test_gpu.py.
"""

from types import SimpleNamespace

import attention_cases
import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention

from mpvit.ops import mmcv_bridge
from mpvit.ops.msda import fused, module

SHAPES = torch.tensor([[6, 8], [3, 4]])


def make_inputs(numbers, dtype=torch.float64):
    """Direction of the gradient, and inputs that want one; boxes do not."""
    direction, *inputs = attention_cases.make_fused_inputs('partly outside', dtype, numbers)
    if dtype == torch.float64:
        inputs[2] = inputs[2].double()
    leaves = [t for i, t in enumerate(inputs) if i != 1 and (i != 2 or numbers == 2)]
    for leaf in leaves:
        leaf.requires_grad_()
    return direction, inputs, leaves


@pytest.mark.parametrize('numbers', [2, 4])
def test_output_and_gradients_are_those_of_the_equation(numbers):
    direction, inputs, leaves = make_inputs(numbers)
    output = fused.attend(*inputs)
    actual = (output, *torch.autograd.grad(output, leaves, direction))
    expected = attention_cases.fused_in_double(direction, *inputs)
    if numbers == 4:
        expected = expected[:2] + expected[3:]
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('numbers', [2, 4])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_dtypes_follow_the_inputs(dtype, numbers):
    direction, inputs, leaves = make_inputs(numbers, dtype)
    output = fused.attend(*inputs)
    grads = torch.autograd.grad(output, leaves, direction)
    assert [grad.dtype for grad in grads] == [leaf.dtype for leaf in leaves]
    expected = attention_cases.fused_in_double(direction, *inputs)
    attention_cases.assert_near('output', output, expected[0], dtype)
    attention_cases.assert_near('logits', grads[-1], expected[-1], dtype)


def test_operator_obeys_torchs_rules():
    _, inputs, _ = make_inputs(2, torch.float32)
    torch.library.opcheck(torch.ops.mpvit.fused_deform_attn.default, inputs)


def test_compiles_without_a_break():
    compiled = torch.compile(fused.attend, fullgraph=True, backend='aot_eager')
    results = []
    for function in (fused.attend, compiled):
        direction, inputs, leaves = make_inputs(2, torch.float32)
        output = function(*inputs)
        results.append((output, *torch.autograd.grad(output, leaves, direction)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_boxes_get_no_gradient():
    """A module whose boxes want one does not come here."""
    direction, inputs, _ = make_inputs(4)
    on_gpu = SimpleNamespace(device=torch.device('cuda', 0))
    assert fused.applies(on_gpu, inputs[2])
    assert not fused.applies(inputs[0], inputs[2])
    inputs[2].requires_grad_()
    assert not fused.applies(on_gpu, inputs[2])
    with pytest.raises(NotImplementedError, match='no gradient of boxes'):
        fused.attend(*inputs).backward(direction)


def test_shapes_that_do_not_fit_are_refused():
    _, (value, shapes, points, offsets, logits), _ = make_inputs(2)
    with pytest.raises(ValueError, match='do not fit values'):
        fused.attend(value, shapes, points, offsets[:, :2], logits)
    with pytest.raises(ValueError, match='2 or 4 numbers, not 1'):
        fused.attend(value, shapes, points[..., :1], offsets, logits)
    with pytest.raises(ValueError, match='have 60 positions'):
        fused.attend(value[:, :-1], shapes, points, offsets, logits)


def make_module(**kwargs):
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(
        embed_dims=32, num_heads=4, num_levels=2, num_points=4, batch_first=True, **kwargs
    )
    for linear in (attention.sampling_offsets, attention.attention_weights):
        torch.nn.init.normal_(linear.weight, std=0.3)
    inputs = dict(query=torch.randn(2, 60, 32), query_pos=torch.randn(2, 60, 32))
    return attention.eval(), inputs


@pytest.fixture
def everywhere(monkeypatch):
    """Modules use the fused operator on the CPU too."""
    monkeypatch.setattr(module, 'applies', lambda value, points: points.shape[-1] == 2)


def test_module_with_it_is_mmcvs_in_value_and_gradient(everywhere):
    attention, inputs = make_module()
    attention = attention.double()
    inputs = {name: tensor.double().requires_grad_() for name, tensor in inputs.items()}
    inputs['reference_points'] = torch.rand(2, 60, 2, 2).double().requires_grad_()
    leaves = [*inputs.values(), *attention.parameters()]
    results = []
    for patched in (True, False):
        if patched:
            output = attention(**inputs, spatial_shapes=SHAPES)
        else:
            with mmcv_bridge.stock_attention():
                output = attention(
                    **inputs, spatial_shapes=SHAPES, level_start_index=torch.tensor([0, 48])
                )
        results.append((output, *torch.autograd.grad(output.square().sum(), leaves)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def kept_by(attention, inputs):
    """Bytes kept for the backward pass besides parameters, each storage once."""
    storages = {}
    parameters = {p.data_ptr() for p in attention.parameters()}

    def pack(tensor):
        if tensor.data_ptr() not in parameters:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage  # holds it, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        with torch.autocast('cpu', torch.bfloat16):
            attention(**inputs, spatial_shapes=SHAPES)
    return sum(storage.nbytes() for storage in storages.values())


def test_mixed_precision_keeps_less_for_the_backward_pass(monkeypatch):
    """Offsets in bfloat16 instead of locations in float32.

    On a GPU also logits in bfloat16 instead of weights in float32, as autocast's softmax is there.
    """
    attention, inputs = make_module()
    inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    inputs['reference_points'] = torch.rand(2, 60, 2, 2)
    separate = kept_by(attention, inputs)
    monkeypatch.setattr(module, 'applies', lambda value, points: True)
    samples = 2 * 60 * 4 * 2 * 4
    saved = samples * 2 * (4 - 2) - inputs['reference_points'].nbytes
    assert separate - kept_by(attention, inputs) >= saved
