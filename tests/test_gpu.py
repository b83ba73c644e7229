"""What only a GPU can show. Not run in continuous integration, which has none."""

import importlib
import itertools
import subprocess

import attention_cases
import interruptions
import pytest
import test_parity
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.losses import FocalLoss
from parity_detector import CONFIGS
from runs import environment, train_as_two

from benchmarks import gpu_parts
from mpvit.checkpoints.reading import read
from mpvit.engine.test import evaluate
from mpvit.engine.train import train
from mpvit.ops.msda import fused, reference
from mpvit.ops.msda import op as attention
from mpvit.ops.msda import selection as choice

pytestmark = pytest.mark.gpu


def test_attention_on_the_gpu_equals_the_cpu():
    torch.manual_seed(0)
    module = MultiScaleDeformableAttention(embed_dims=64, num_heads=8, num_levels=2, dropout=0.0)
    module = module.eval()
    torch.nn.init.normal_(module.sampling_offsets.weight, std=0.1)
    shapes = torch.tensor([[8, 10], [4, 5]])
    inputs = dict(
        query=torch.randn(30, 2, 64),
        value=torch.randn(100, 2, 64),
        reference_points=torch.rand(2, 30, 2, 2),
        spatial_shapes=shapes,
        level_start_index=torch.tensor([0, 80]),
    )
    on_cpu = module(**inputs)
    module.cuda()
    on_gpu = module(**{name: tensor.cuda() for name, tensor in inputs.items()})
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-4, atol=1e-5)
    on_gpu.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.fixture(params=[False, True], ids=['heads', 'neighbours'])
def untuned(request, monkeypatch):
    """Triton compiles one configuration of each order of rows, which is fast, and tunes nothing."""
    backend = pytest.importorskip('mpvit.ops.msda.triton', reason='needs Triton')
    for kernel in (backend._run_forward, backend._run_backward):
        chosen = [c for c in kernel.configs if c.kwargs['NEIGHBOURS'] == request.param]
        monkeypatch.setattr(kernel, 'configs', chosen[:1])
    return backend


@pytest.mark.parametrize('dtype', attention_cases.DTYPES, ids=str)
@pytest.mark.parametrize('case', attention_cases.CASES)
def test_triton_equals_the_reference_in_float64(untuned, case, dtype):
    attention_cases.check(untuned, case, dtype, 'cuda')


@pytest.mark.parametrize('dtype', attention_cases.DTYPES, ids=str)
def test_every_configuration_that_the_tuner_tries_is_right(monkeypatch, dtype):
    backend = pytest.importorskip('mpvit.ops.msda.triton', reason='needs Triton')
    case = ([(12, 16), (6, 8)], 32, (-0.3, 1.3))  # as wide as in training
    monkeypatch.setitem(attention_cases.CASES, 'wide', case)
    capability = torch.cuda.get_device_capability()
    forward = backend.candidates(32, dtype.itemsize, False, capability)
    backward = backend.candidates(32, 4, True, capability)
    for of_forward, of_backward in itertools.zip_longest(forward, backward):
        monkeypatch.setattr(backend._run_forward, 'configs', [of_forward or forward[0]])
        monkeypatch.setattr(backend._run_backward, 'configs', [of_backward or backward[0]])
        attention_cases.check(backend, 'wide', dtype, 'cuda')


@pytest.mark.parametrize('dtype', attention_cases.DTYPES, ids=str)
@pytest.mark.parametrize('case', attention_cases.CASES)
@pytest.mark.parametrize('name', ['cuda', 'reference', 'deterministic'])
def test_every_other_backend_equals_the_reference_in_float64(name, case, dtype):
    reason = attention.unavailable(name, torch.device('cuda'), dtype)
    if reason:
        pytest.skip(f'{name}: {reason}')
    attention_cases.check(importlib.import_module(f'mpvit.ops.msda.{name}'), case, dtype, 'cuda')


@pytest.mark.parametrize('dtype', attention_cases.DTYPES, ids=str)
@pytest.mark.parametrize('numbers', [2, 4])
@pytest.mark.parametrize('name', ['triton', 'cuda', 'deterministic'])
def test_fused_attention_equals_the_reference_in_float64(
    untuned, monkeypatch, name, numbers, dtype
):
    reason = attention.unavailable(name, torch.device('cuda'), dtype)
    if reason:
        pytest.skip(f'{name}: {reason}')
    monkeypatch.setenv(attention.VARIABLE, name)
    direction, *inputs = attention_cases.make_fused_inputs(
        'partly outside', dtype, numbers, 'cuda', queries=300, heads=8
    )
    wanted = (0, 2, 3, 4) if numbers == 2 else (0, 3, 4)  # boxes get no gradient
    leaves = [inputs[i].requires_grad_() for i in wanted]
    output = fused.attend(*inputs)
    actual = (output, *torch.autograd.grad(output, leaves, direction))
    expected = attention_cases.fused_in_double(direction, *inputs)
    expected = expected if numbers == 2 else expected[:2] + expected[3:]
    for a, b in zip(actual, expected, strict=True):
        attention_cases.assert_near(str(tuple(a.shape)), a, b, a.dtype)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_sums_in_low_precision_are_near_float64(untuned, monkeypatch, dtype):
    """Of 240 queries on 60 positions, which is 64 additions to each, each with its rounding."""
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip('needs compute capability 9.0')
    monkeypatch.setenv('MPVIT_MSDA_ATOMICS', 'native')
    direction, *inputs = attention_cases.make_inputs('inside', dtype, 'cuda', queries=240)
    of_value, *_ = untuned.backward(direction, *inputs)
    assert of_value.dtype == dtype
    double = [t if t.dtype == torch.int64 else t.double() for t in inputs]
    exact, *_ = reference.backward(direction.double(), *double)
    error = (of_value - exact).norm() / exact.norm()
    assert error < 8 * torch.finfo(dtype).eps


def test_choice_is_measured_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv(choice.VARIABLE, str(tmp_path))
    choice.record.cache_clear()
    inputs = attention_cases.make_inputs('inside', torch.float32, 'cuda')[1:]
    choice.chosen.clear()
    output = attention.ms_deform_attn(*inputs)
    torch.testing.assert_close(output, reference.forward(*inputs), rtol=1e-4, atol=1e-5)
    ((key, name),) = choice.chosen.items()
    assert key[1].direction == 'forward'
    assert name in ('triton', 'cuda')
    assert list(tmp_path.rglob('*.json'))
    choice.record.cache_clear()


@pytest.mark.parametrize('amp', ['fp16', 'bf16'])
def test_mixed_precision_training_never_takes_the_slow_attention(gpu_table, root, monkeypatch, amp):
    def refuse(*inputs):
        raise AssertionError('plain PyTorch was called')

    monkeypatch.setattr(reference, 'forward', refuse)
    monkeypatch.setattr(reference, 'backward', refuse)
    model, optimizer = gpu_table.build(root / 'tests' / 'data' / 'tiny.py', amp, 'cuda')
    losses = model.train_step(gpu_table.make_batch((96, 128), 2, 'cuda'), optimizer)
    assert all(loss.isfinite() for loss in losses.values())


def test_focal_loss_on_the_gpu_equals_the_cpu():
    torch.manual_seed(0)
    logits, target = torch.randn(50, 6), torch.randint(0, 7, (50,))
    loss = FocalLoss(use_sigmoid=True, gamma=2.0, alpha=0.25)
    torch.testing.assert_close(loss(logits.cuda(), target.cuda()).cpu(), loss(logits, target))


@pytest.mark.parametrize('amp', [None, 'fp16', 'bf16'])
def test_training_and_evaluation(tiny, tmp_path, amp):
    config, places = tiny
    train(config, work_dir=str(tmp_path), cfg_options=places, amp=amp)
    metrics = evaluate(
        config, str(tmp_path / 'epoch_2.pth'), work_dir=str(tmp_path), cfg_options=places
    )
    assert 'coco/bbox_mAP' in metrics


@pytest.mark.parametrize('name', CONFIGS)
def test_detector_equals_the_official_one(name):
    with gpu_parts.tf32(False):
        test_parity.check(name, double=False, device='cuda')


DETERMINISTIC = 'randomness.deterministic=True'


def test_two_runs_give_the_same_weights(tiny, tmp_path):
    config, places = tiny
    for run in ('one', 'two'):
        train(config, work_dir=str(tmp_path / run), cfg_options=[*places, DETERMINISTIC])
    torch.use_deterministic_algorithms(False)
    files = [tmp_path / run / 'epoch_2.pth' for run in ('one', 'two')]
    assert interruptions.differences(*files) == []


def test_killed_and_resumed_gives_the_same_weights(root, tiny, tmp_path):
    interruptions.write_config(tmp_path, tiny[0])
    length = ['train_cfg.max_epochs=1000', 'train_cfg.val_interval=2']
    told = interruptions.driven(root, tmp_path, 1, 235, *tiny[1], *length, DETERMINISTIC)
    assert (told['last'], told['whole']) == (['0', '1'], ['0', '1']), told['logs']
    runs = zip(('killed', 'whole'), told['names'], strict=True)
    assert interruptions.differences(*(tmp_path / run / name for run, name in runs)) == []


def test_two_processes_on_one_gpu(root, tiny, tmp_path):
    """Over gloo, since NCCL refuses two processes on one GPU."""
    config, places = tiny
    options = [*places, 'train_cfg.max_epochs=1', 'env_cfg.dist_cfg.backend=gloo']
    statuses, said = train_as_two(root, config, tmp_path / 'two', options, CUDA_VISIBLE_DEVICES='0')
    assert statuses == [0, 0], said
    assert read(tmp_path / 'two' / 'epoch_1.pth')['meta']['iter'] == 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two CUDA devices')
def test_two_processes_over_nccl(root, tiny, tmp_path):
    config, places = tiny
    script = [root / 'tools' / 'dist_train.sh', config, '2', '--work-dir', tmp_path / 'two']
    subprocess.run([*script, '--cfg-options', *places], cwd=root, env=environment(root), check=True)
    assert (tmp_path / 'two' / 'epoch_2.pth').exists()
