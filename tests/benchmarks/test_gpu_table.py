"""The parts of the GPU table that run without a GPU."""

import os
import sys

import pytest
import torch

from mpvit.ops.msda import op as attention


def test_a_training_step_of_the_toy_detector(gpu_table, root):
    model, optimizer = gpu_table.build(root / 'tests' / 'data' / 'tiny.py', None, 'cpu')
    batch = gpu_table.make_batch((96, 128), 2, 'cpu')
    weight = model.encoder.layers[0].self_attn.value_proj.weight
    before = weight.detach().clone()
    losses = model.train_step(batch, optimizer)
    assert all(loss.isfinite() for loss in losses.values())
    assert not torch.equal(weight, before)


def test_bf16_is_that_of_the_tools(gpu_table, root):
    _, optimizer = gpu_table.build(root / 'tests' / 'data' / 'tiny.py', 'bf16', 'cpu')
    assert type(optimizer).__name__ == 'AutocastOptimWrapper'


def test_forcing_is_undone(gpu_table, monkeypatch):
    monkeypatch.setenv(attention.VARIABLE, 'cpu')
    with gpu_table.forced('reference'):
        assert os.environ[attention.VARIABLE] == 'reference'
    assert os.environ[attention.VARIABLE] == 'cpu'


def test_inputs_of_the_op_and_its_bytes(gpu_table):
    levels = ((4, 6), (2, 3))
    inputs = gpu_table.make_op_inputs(torch.bfloat16, 'cpu', levels)
    output = attention.forward(*inputs[1:])
    assert output.shape == (1, 30, 256)
    samples = 30 * 8 * 2 * 4
    forward = 2 * 30 * 256 * 2 + samples * (2 * 4 + 2)  # values and output; locations and weights
    assert gpu_table.bytes_to_move(inputs, 'forward') == forward
    assert gpu_table.bytes_to_move(inputs, 'backward') == 2 * forward - 30 * 256 * 2


def test_ways_of_a_backend_compute_the_same(gpu_table):
    """The plain pass, and softmax and locations inside it; the CPU serves as the kernels would."""
    inputs = gpu_table.make_op_inputs(torch.float32, 'cpu', ((4, 6), (2, 3)))
    grad, value, shapes, locations, weights = inputs
    inputs = (grad, value, shapes, locations, weights / weights.sum((3, 4), keepdim=True))
    for direction in ('forward', 'backward'):
        runs = {}
        for name, variables, _, run in gpu_table._variants('triton', direction, inputs):
            with gpu_table.forced('cpu', **variables):
                runs[name] = run()
        plain, whole = runs.values()
        first = [results if direction == 'forward' else results[0] for results in (plain, whole)]
        torch.testing.assert_close(*first, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_one_line(gpu_table, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['gpu_table'])
    with pytest.raises(SystemExit, match='^error: needs a CUDA device'):
        gpu_table.main()
