"""The compiled CPU kernel equals the equation, in value and gradient, whatever the threads."""

import multiprocessing

import attention_cases
import numba
import pytest
import torch

from mpvit.ops import threads as pools
from mpvit.ops.msda import cpu


def make_inputs(channels=32, batch=2, queries=17, heads=4):
    torch.manual_seed(channels)
    shapes = torch.tensor([[6, 8], [3, 4], [1, 1]])
    value = torch.randn(batch, 61, heads, channels)
    locations = torch.rand(batch, queries, heads, 3, 2, 2) * 1.6 - 0.3
    return value, shapes, locations, torch.rand(batch, queries, heads, 3, 2)


@pytest.fixture
def threads():
    """Sets the number of threads; the old number comes back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize('dtype', attention_cases.DTYPES, ids=str)
@pytest.mark.parametrize('case', attention_cases.CASES)
def test_kernel_equals_the_reference(case, dtype):
    attention_cases.check(cpu, case, dtype)


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
    assert asked == [3, 3, 2, 2]  # to copy the values, and to sum them


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
