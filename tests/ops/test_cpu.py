"""The compiled CPU kernel equals the equation, in value and gradient, whatever the threads."""

import multiprocessing

import numba
import pytest
import torch

from mpvit.ops import threads as pools
from mpvit.ops.msda import cpu
from mpvit.ops.msda.reference import forward as ms_deform_attn

SHAPES = torch.tensor([[6, 8], [3, 4], [1, 1]])
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def make_inputs(channels=32, dtype=torch.float32, batch=2, queries=17, heads=4):
    torch.manual_seed(channels)
    value = torch.randn(batch, 61, heads, channels).to(dtype)
    # many samples lie outside the map, some exactly on a border or on the centre of a pixel
    locations = torch.rand(batch, queries, heads, len(SHAPES), 2, 2) * 1.6 - 0.3
    locations[0, 0, 0, :, :, 0] = torch.tensor([0.0, 1.0])
    locations[0, 1, 0, 0, 0] = torch.tensor([0.5 / 8, 5.5 / 6])
    weights = torch.rand(batch, queries, heads, len(SHAPES), 2)
    return value, SHAPES, locations, weights


@pytest.fixture
def threads():
    """Sets the number of threads; the old number comes back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def relative_error(actual, expected):
    return (actual.double() - expected).abs().max() / expected.abs().max()


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('channels', [1, 8, 27, 32, 36])
def test_kernel_is_the_equation_in_value_and_gradient(channels, dtype):
    value, shapes, locations, weights = make_inputs(channels, dtype)
    exact = [t.double().requires_grad_() for t in (value, locations, weights)]
    expected = ms_deform_attn(exact[0], shapes, *exact[1:])
    direction = torch.randn(expected.shape).to(dtype)
    output = cpu.forward(value, shapes, locations, weights)
    assert output.dtype == dtype
    assert relative_error(output, expected) < TOLERANCE[dtype]
    grads = cpu.backward(direction, value, shapes, locations, weights)
    for grad, leaf, reference in zip(
        grads,
        (value, locations, weights),
        torch.autograd.grad(expected, exact, direction.double()),
        strict=True,
    ):
        assert grad.dtype == leaf.dtype
        assert relative_error(grad, reference) < TOLERANCE[dtype]


def test_inputs_need_not_be_contiguous():
    value, shapes, locations, weights = make_inputs()
    expected = cpu.forward(value, shapes, locations, weights)
    strided = [
        value.transpose(1, 2).contiguous().transpose(1, 2),
        shapes,
        locations.expand(2, *locations.shape).select(0, 1),
        weights.flip(0).flip(0).transpose(0, 1).contiguous().transpose(0, 1),
    ]
    assert torch.equal(cpu.forward(*strided), expected)


@pytest.mark.parametrize('batch', [1, 2])
def test_result_does_not_depend_on_the_number_of_threads(threads, monkeypatch, batch):
    monkeypatch.setattr(cpu, '_INLINE_SAMPLES', 0)
    inputs = make_inputs(batch=batch, queries=50)
    direction = torch.randn(batch, 50, 128)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append([cpu.forward(*inputs), *cpu.backward(direction, *inputs)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_number_of_threads_is_torchs(threads, monkeypatch):
    asked = []
    pool = pools._pool
    monkeypatch.setattr(
        pools, '_pool', lambda process, count: asked.append(count) or pool(0, count)
    )
    monkeypatch.setattr(cpu, '_INLINE_SAMPLES', 0)
    for count in (3, 2):
        threads(count)
        cpu.forward(*make_inputs())
    assert asked == [3, 2]


def test_default_dtype_does_not_matter():
    inputs = make_inputs(8)
    expected = cpu.forward(*inputs)
    torch.set_default_dtype(torch.float64)
    try:
        output = cpu.forward(*inputs)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(output, expected)


def test_small_inputs_wake_no_thread(monkeypatch):
    monkeypatch.setattr(pools, '_pool', lambda *_: pytest.fail('a pool was asked for'))
    cpu.forward(*make_inputs())


def test_nan_comes_through_and_infinity_lies_outside():
    value, shapes, locations, weights = make_inputs(8)
    clean = cpu.forward(value, shapes, locations, weights)
    locations[1, 3, 2, 1, 0, 0] = float('nan')
    locations[0, 5, 1, 0, 1, 1] = float('inf')
    output = cpu.forward(value, shapes, locations, weights)
    assert output[1, 3].view(4, 8)[2].isnan().all()
    assert output.isnan().sum() == 8
    locations[0, 5, 1, 0, 1, 1] = 9.0
    assert torch.equal(output[0], cpu.forward(value, shapes, locations, weights)[0])
    assert torch.equal(output[1, :3], clean[1, :3])


def _in_child(expected, queue):
    queue.put(torch.equal(cpu.forward(*make_inputs()), expected))


def test_forked_worker_starts_its_own_threads(threads, monkeypatch):
    """As in the workers of a data loader: threads of the parent do not exist in the child."""
    monkeypatch.setattr(cpu, '_INLINE_SAMPLES', 0)
    threads(2)
    expected = cpu.forward(*make_inputs())
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(expected, queue))
    child.start()
    equal = queue.get(timeout=60)
    child.join(10)
    assert equal
    assert child.exitcode == 0


def test_kernel_is_cached_on_disk(tmp_path, monkeypatch):
    """Made again, as in another process, the kernel is read instead of compiled."""
    monkeypatch.setattr(numba.config, 'CACHE_DIR', str(tmp_path))
    hits = []
    for _ in range(2):
        cpu._forward_kernel.cache_clear()
        cpu.forward(*make_inputs(24))
        hits.append(sum(cpu._forward_kernel(24).stats.cache_hits.values()))
    cpu._forward_kernel.cache_clear()
    assert hits == [0, 1]


def test_what_it_cannot_serve():
    device = torch.device('cpu')
    assert cpu.unavailable(device, torch.float32) is None
    assert 'float64' in cpu.unavailable(device, torch.float64)
    assert 'cuda' in cpu.unavailable(torch.device('cuda'), torch.float32)
