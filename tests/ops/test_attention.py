"""The operator and the choice of what computes it."""

from types import SimpleNamespace

import attention_cases
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mpvit.errors import UserError
from mpvit.ops.msda import deterministic, reference
from mpvit.ops.msda import op as attention
from mpvit.ops.msda import selection as choice

SHAPES = torch.tensor([[6, 8], [3, 4]])
CUDA = torch.device('cuda', 0)


def make_inputs(dtype=torch.float32, locations=None, heads=4, channels=8):
    """Inputs with some samples outside the maps; locations float32 unless told otherwise."""
    torch.manual_seed(0)
    places = torch.rand(2, 10, heads, 2, 3, 2, dtype=locations or torch.float32) * 1.4 - 0.2
    return (
        torch.randn(2, 60, heads, channels, dtype=dtype).requires_grad_(),
        SHAPES,
        places.requires_grad_(),
        torch.rand(2, 10, heads, 2, 3, dtype=dtype).requires_grad_(),
    )


def leaves(inputs):
    return (inputs[0], inputs[2], inputs[3])


@pytest.fixture
def fakes(monkeypatch):
    """Backends that record their calls; entries may be replaced by reasons or errors."""
    calls = []

    def fake(name):
        def forward(*inputs):
            calls.append(name)
            return reference.forward(*inputs)

        return SimpleNamespace(
            forward=forward,
            backward=reference.backward,
            unavailable=lambda device, dtype: None,
            is_mmcvs=lambda: False,
        )

    modules = {name: fake(name) for name in attention.BACKENDS}
    monkeypatch.setattr(attention, '_load', modules.__getitem__)
    monkeypatch.delenv(attention.VARIABLE, raising=False)
    attention._usable.cache_clear()
    choice.chosen.clear()
    yield SimpleNamespace(calls=calls, **modules)
    attention._usable.cache_clear()
    choice.chosen.clear()


def on_cuda(dtype=torch.float32, queries=10):
    """What the dispatcher looks at of the inputs of a call on a GPU."""
    like = SimpleNamespace(device=CUDA, dtype=dtype, shape=(2, 60, 4, 8))
    places = SimpleNamespace(
        shape=(2, queries, 4, 2, 3, 2), numel=lambda: 96 * queries, dtype=torch.float32
    )
    return (like, like, places, like)


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that a GPU is there as far as the choice is concerned; times are given."""
    times = {}
    monkeypatch.setattr(torch.cuda, 'device', lambda device: torch.no_grad())
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: False)
    monkeypatch.setattr(choice, 'record', lambda device: None)
    monkeypatch.setattr(choice, 'cuda_milliseconds', lambda run: times[run.func])
    return times


def test_gradients_are_right_in_float64():
    inputs = make_inputs(torch.float64, torch.float64)
    assert torch.autograd.gradcheck(
        lambda value, places, weights: attention.ms_deform_attn(value, SHAPES, places, weights),
        leaves(inputs),
    )


def test_operator_obeys_torchs_rules():
    torch.library.opcheck(torch.ops.mpvit.ms_deform_attn.default, make_inputs())


def test_backward_of_the_reference_equals_autograd():
    inputs = make_inputs(torch.float64, torch.float64)
    output = reference.forward(*inputs)
    direction = torch.randn_like(output)
    expected = torch.autograd.grad(output, leaves(inputs), direction)
    actual = reference.backward(direction, *(t.detach() for t in inputs))
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_follow_the_inputs_and_locations_keep_theirs(dtype):
    inputs = make_inputs(dtype)
    output = attention.ms_deform_attn(*inputs)
    assert output.dtype == dtype
    value, shapes, places, weights = inputs
    exact = reference.forward(value.double(), shapes, places.double(), weights.double())
    # one rounding at the end, not one per sample and none of the locations
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(output.double(), exact, rtol=2 * step, atol=1e-5 + step)
    grads = torch.autograd.grad(output.float().sum(), leaves(inputs))
    assert [grad.dtype for grad in grads] == [dtype, torch.float32, dtype]


def test_autocast_leaves_the_operator_alone():
    inputs = make_inputs()
    plain = attention.ms_deform_attn(*inputs)
    with torch.autocast('cpu', torch.bfloat16):
        under = attention.ms_deform_attn(*inputs)
    assert under.dtype == torch.float32
    torch.testing.assert_close(under, plain, rtol=0, atol=0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_compiles_without_a_break(dtype):
    compiled = torch.compile(attention.ms_deform_attn, fullgraph=True, backend='aot_eager')
    results = []
    for function in (attention.ms_deform_attn, compiled):
        inputs = make_inputs(dtype)
        output = function(*inputs)
        results.append((output, *torch.autograd.grad(output.sum(), leaves(inputs))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_no_queries():
    output = attention.ms_deform_attn(
        torch.rand(1, 60, 4, 8), SHAPES, torch.rand(1, 0, 4, 2, 3, 2), torch.rand(1, 0, 4, 2, 3)
    )
    assert output.shape == (1, 0, 32)


def test_shapes_that_do_not_fit_are_refused():
    value, shapes, places, weights = (t.detach() for t in make_inputs())
    with pytest.raises(ValueError, match='do not fit values'):
        attention.ms_deform_attn(value, shapes, places[:, :5], weights)
    with pytest.raises(ValueError, match='do not fit values'):
        attention.ms_deform_attn(value, shapes[:1], places, weights)
    with pytest.raises(ValueError, match='have 60 positions, but value .* has 59'):
        attention.ms_deform_attn(value[:, :59], shapes, places, weights)


def test_cpu_takes_the_cpu_kernel_where_it_can(fakes):
    inputs = [t.detach() for t in make_inputs()]
    attention.ms_deform_attn(*inputs)
    fakes.cpu.unavailable = lambda device, dtype: 'no numba'
    attention._usable.cache_clear()
    attention.ms_deform_attn(*inputs)
    assert fakes.calls == ['cpu', 'reference']


def test_a_module_that_does_not_import_is_unavailable(monkeypatch):
    def fail(name):
        raise ImportError('No module named numba')

    monkeypatch.setattr(attention, '_load', fail)
    assert 'No module named numba' in attention.unavailable('cpu', CUDA, torch.float32)


def test_forced_backend(fakes, monkeypatch):
    inputs = [t.detach() for t in make_inputs()]
    for name in attention.BACKENDS:
        monkeypatch.setenv(attention.VARIABLE, name)
        attention.ms_deform_attn(*inputs)
    assert fakes.calls == list(attention.BACKENDS)


def test_forced_backend_that_cannot_serve_says_why(fakes, monkeypatch):
    fakes.cuda.unavailable = lambda device, dtype: 'it has no kernel for bfloat16'
    monkeypatch.setenv(attention.VARIABLE, 'cuda')
    with pytest.raises(UserError, match='MPVIT_MSDA=cuda cannot serve bfloat16 .*no kernel for'):
        attention.ms_deform_attn(*make_inputs(torch.bfloat16))


def test_forced_backend_that_does_not_exist(fakes, monkeypatch):
    monkeypatch.setenv(attention.VARIABLE, 'metal')
    with pytest.raises(UserError, match='MPVIT_MSDA=metal .*reference, .*, triton, cuda'):
        attention.ms_deform_attn(*make_inputs())


@pytest.mark.parametrize('winner', ['cuda', 'triton'])
def test_gpu_takes_the_faster_one_for_each_direction(fakes, gpu, winner):
    loser = {'cuda': 'triton', 'triton': 'cuda'}[winner]
    fakes.cuda.backward = lambda *inputs: None
    fakes.triton.backward = lambda *inputs: None
    win, lose = getattr(fakes, winner), getattr(fakes, loser)
    gpu.update({win.forward: 1.0, lose.forward: 2.0, win.backward: 2.0, lose.backward: 1.0})
    assert attention.backend('forward', *on_cuda()) is win
    assert attention.backend('backward', None, *on_cuda()) is lose
    gpu.clear()  # a second measurement would fail
    assert attention.backend('forward', *on_cuda()) is win


def test_gpu_measures_each_dtype(fakes, gpu):
    gpu.update({fakes.cuda.forward: 1.0, fakes.triton.forward: 2.0})
    assert attention.backend('forward', *on_cuda(torch.float32)) is fakes.cuda
    gpu.update({fakes.cuda.forward: 3.0})
    assert attention.backend('forward', *on_cuda(torch.float32)) is fakes.cuda
    assert attention.backend('forward', *on_cuda(torch.float16)) is fakes.triton


def test_gpu_takes_what_is_the_same_in_every_run_where_that_is_asked_for(fakes, gpu):
    torch.use_deterministic_algorithms(True)
    try:
        calls = (('forward',), ('backward', 0), ('fused_backward', 0))
        chosen = [attention.backend(*call, *on_cuda()) for call in calls]
        assert chosen == [fakes.deterministic] * 3
        like = SimpleNamespace(device=torch.device('cpu'), dtype=torch.float32, shape=(2, 60, 4, 8))
        assert attention.backend('backward', 0, like, like, on_cuda()[2], like) is fakes.cpu
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('case', attention_cases.CASES)
@pytest.mark.parametrize('dtype', attention_cases.DTYPES, ids=str)
def test_gradients_of_the_deterministic_backend(case, dtype):
    attention_cases.check(deterministic, case, dtype)


def test_gpu_measures_few_and_many_queries(fakes, gpu):
    gpu.update({fakes.cuda.forward: 1.0, fakes.triton.forward: 2.0})
    assert attention.backend('forward', *on_cuda()) is fakes.cuda
    gpu.update({fakes.cuda.forward: 3.0})
    assert attention.backend('forward', *on_cuda(queries=11)) is fakes.cuda
    assert attention.backend('forward', *on_cuda(queries=1000)) is fakes.triton


def test_mmcvs_own_extension_wins_unmeasured(fakes, gpu):
    fakes.cuda.is_mmcvs = lambda: True
    assert attention.backend('forward', *on_cuda()) is fakes.cuda
    fakes.cuda.unavailable = lambda device, dtype: 'it has no kernel for bfloat16'
    gpu[fakes.triton.forward] = 1.0
    assert attention.backend('forward', *on_cuda(torch.bfloat16)) is fakes.triton


def test_gpu_without_a_fast_backend_warns_once(fakes, recwarn):
    fakes.cuda.unavailable = lambda device, dtype: 'not built'
    fakes.triton.unavailable = lambda device, dtype: 'not installed'
    for _ in range(2):
        assert attention.backend('forward', *on_cuda()) is fakes.reference
    (warning,) = recwarn
    assert 'cuda: not built; triton: not installed' in str(warning.message)


def test_sizes_given_as_numbers_are_made_a_tensor_once():
    """In inference mode too, after which a training takes the same."""
    value = torch.rand(1, 7, 2, 8, requires_grad=True)
    locations, weights = torch.rand(1, 5, 2, 2, 3, 2), torch.rand(1, 5, 2, 2, 3)
    sizes, device = ((2, 3), (1, 1)), torch.device('cpu')
    with torch.inference_mode():
        made = attention.level_sizes(sizes, device)
    assert made is attention.level_sizes([list(pair) for pair in sizes], device)
    assert made.tolist() == [[2, 3], [1, 1]]
    given = attention.ms_deform_attn(value, made.clone(), locations, weights)
    torch.testing.assert_close(attention.ms_deform_attn(value, sizes, locations, weights), given)
    given.sum().backward()
    with FakeTensorMode() as mode:
        fake = attention.level_sizes(((3, 4),), device)
    assert fake.fake_mode is mode
    assert attention.level_sizes(((3, 4),), device).tolist() == [[3, 4]]
