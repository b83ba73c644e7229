"""Training speed and memory on a GPU, and the attention op against bandwidth and rivals.

Parts of `make gpu` (benchmarks/gpu.py). Images are 800 x 1333 px of noise with 10 boxes each.
"""

import argparse
import itertools
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

import mpvit.register  # noqa: F401  (makes mmdet importable)
from benchmarks._timing import Row, markdown
from benchmarks.rivals import GPU_ATTENTION
from mpvit.config.presets import enable_amp
from mpvit.ops.msda import fused
from mpvit.ops.msda import op as attention
from mpvit.ops.msda.selection import cuda_milliseconds

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs' / 'deformable_detr' / 'mpvit_s_ddetr_50e.py'
TINY = ROOT / 'tests' / 'data' / 'tiny.py'
BACKENDS = ('cuda', 'triton', 'reference')
PRECISIONS = {'fp32': None, 'AMP fp16': 'fp16', 'AMP bf16': 'bf16'}
DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
SIZE = (800, 1333)
LEVELS = ((100, 167), (50, 84), (25, 42), (13, 21))  # of that size at strides 8 to 64


@contextmanager
def forced(backend: str, **others: str) -> Iterator[None]:
    """While it lasts, deformable attention runs on one backend, also under a complete mmcv.

    ``others`` are more environment variables.
    """
    variables = {attention.VARIABLE: backend, **others}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def build(config: Path, amp: str | None, device: str) -> tuple[BaseModel, OptimWrapper]:
    """A detector ready to train, and its optimizer.

    Args:
        config: Config of the detector; its pretrained weights are not loaded.
        amp: Mixed precision as of tools/train.py, 'fp16' or 'bf16'; None for none.
        device: Where to.
    """
    cfg = Config.fromfile(config)
    init_default_scope('mmdet')
    cfg.model.backbone.pop('init_cfg', None)
    torch.manual_seed(0)
    MMLogger.get_current_instance().setLevel('WARNING')  # it lists every parameter
    model = MODELS.build(cfg.model)
    model.init_weights()
    if amp:
        enable_amp(cfg, amp)
    model = model.to(device).train()
    return model, build_optim_wrapper(model, cfg.optim_wrapper)


def make_batch(size: tuple[int, int], images: int, device: str, seed: int = 0) -> dict:
    """Noise with 10 boxes an image, as the data loader would hand it over.

    Args:
        size: Height and width in pixels.
        images: Number of images.
        device: Where to.
        seed: Of noise and boxes.
    """
    from mmdet.structures import DetDataSample

    height, width = size
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(images):
        corners = torch.rand(10, 2, 2, generator=generator).sort(dim=1).values
        boxes = corners.flatten(1) * torch.tensor([width, height] * 2)
        sample = DetDataSample(
            metainfo=dict(img_shape=size, ori_shape=size, batch_input_shape=size, scale_factor=1.0)
        )
        labels = torch.zeros(10, dtype=torch.long)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels).to(device)
        samples.append(sample)
    pixels = torch.randint(0, 256, (images, 3, *size), dtype=torch.uint8, generator=generator)
    return dict(inputs=list(pixels.to(device)), data_samples=samples)


def synchronize(device: str) -> None:
    """Wait for what a GPU was given to do."""
    if device != 'cpu':
        torch.cuda.synchronize(device)


def seconds_of(step: Callable[[], object], device: str, repeats: int, warm_up: int = 2) -> float:
    """Median time of a piece of work that also works on the host."""
    times = []
    for _ in range(warm_up + repeats):
        synchronize(device)
        start = time.perf_counter()
        step()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[warm_up:])


def device_milliseconds(run: Callable[[], object], device: str) -> float:
    """Median time of ``run`` by the clock of the GPU, as a CUDA graph; on a CPU by the host."""
    if device == 'cpu':
        return 1000 * seconds_of(run, device, repeats=2, warm_up=1)
    return cuda_milliseconds(run)


def usable(backend: str, device: str, dtype: torch.dtype) -> str | None:
    """Why a backend of attention cannot be measured, or None."""
    return attention.unavailable(backend, torch.device(device), dtype)


def training(quick: bool, device: str) -> Iterator[Row]:
    """Training steps by precision, batch and backend."""
    config, size = (TINY, (96, 128)) if quick else (CONFIG, SIZE)
    cells = itertools.product(backends_on(device), PRECISIONS.items(), (2, 4))
    for backend, (precision, amp), images in cells:  # the slow reference last
        if device == 'cpu' and amp == 'fp16':
            continue  # mmengine has no scaler for it there
        what = f'training step, {config.stem}, {size[0]}x{size[1]}, batch {images}'
        what = f'{what}, {precision}, {backend}'
        if reason := usable(backend, device, DTYPES[amp or 'fp32']):
            yield Row(what, '', None, note=reason)
        else:
            yield _training_cell(what, config, size, images, amp, backend, device)


def backends_on(device: str) -> tuple[str, ...]:
    """Backends of attention to measure on a device."""
    return BACKENDS if device != 'cpu' else ('cpu', 'reference')


def _training_cell(
    what: str,
    config: Path,
    size: tuple[int, int],
    images: int,
    amp: str | None,
    backend: str,
    device: str,
) -> Row:
    if device != 'cpu':
        torch.cuda.empty_cache()
    try:
        with forced(backend):
            model, optimizer = build(config, amp, device)
            batch = make_batch(size, images, device)
            model.train_step(batch, optimizer)  # kernels are chosen, which takes memory
            if device != 'cpu':
                torch.cuda.reset_peak_memory_stats()
            step = partial(model.train_step, batch, optimizer)
            spent = seconds_of(step, device, repeats=5, warm_up=1)
    except torch.OutOfMemoryError:
        return Row(what, '', None, note='out of memory')
    peak = 'peak memory is that of the process'
    if device != 'cpu':
        peak = f'peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB'
    return Row(what, '', images / spent, note=peak, unit='images/s')


def make_op_inputs(
    dtype: torch.dtype,
    device: str,
    levels: tuple[tuple[int, int], ...] = LEVELS,
    queries: int | None = None,
    batch: int = 1,
) -> tuple[Tensor, ...]:
    """Gradient and inputs of the op.

    Args:
        dtype: Of values, weights and gradient; locations are float32.
        device: Where to.
        levels: Height and width of each level.
        queries: Queries that sample anywhere, as in the decoder; None for one at every position
            that samples near itself, as in the encoder.
        batch: Images.
    """
    generator = torch.Generator().manual_seed(0)
    positions = sum(h * w for h, w in levels)
    centres = [
        torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w).flip(1)
        for h, w in levels
    ]
    if queries is None:
        around = torch.cat(centres)
    else:
        around = torch.rand(queries, 2, generator=generator)
    shape = (batch, len(around), 8, len(levels), 4, 2)
    spread = 0.03 * torch.randn(shape, generator=generator)
    locations = around[None, :, None, None, None] + spread
    weights = torch.rand(locations.shape[:-1], generator=generator) / (4 * len(levels))
    value = torch.randn(batch, positions, 8, 32, generator=generator)
    grad = torch.randn(batch, len(around), 256, generator=generator)
    tensors = (grad.to(dtype), value.to(dtype), torch.tensor(levels), locations, weights.to(dtype))
    return tuple(t.to(device) for t in tensors)


def bytes_to_move(inputs: tuple[Tensor, ...], direction: str) -> int:
    """What must be read and written at least, once each."""
    grad, value, _, locations, weights = inputs
    size = [t.numel() * t.element_size() for t in (value, locations, weights, grad)]
    if direction == 'forward':
        return sum(size)  # the output is as large as its gradient
    return sum(size) + sum(size[:3])


def copied_bytes_per_second(device: str, size: int = 2**30) -> float:
    """Bytes read and written by a copy, per second."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / (device_milliseconds(lambda: target.copy_(source), device) / 1000)


def kernels(quick: bool, device: str) -> Iterator[Row]:
    """The op by place, precision and direction: share of the floor, and against rivals.

    The floor is the time in which a copy moves what the op has to read and write. Encoder: batch 2
    at 800 x 1333 px; decoder: batch 4, 300 queries.
    """
    levels = LEVELS if not quick else ((6, 8), (3, 4))
    bandwidth = copied_bytes_per_second(device, 2**20 if quick else 2**30)
    yield Row('copy', '', bandwidth / 1e9, unit='GB/s')
    places = dict(encoder=dict(batch=2), decoder=dict(batch=4, queries=300))
    for name, dtype in DTYPES.items():
        for place, sizes in places.items():
            inputs = make_op_inputs(dtype, device, levels, **sizes)
            for direction in ('forward', 'backward'):
                what = f'attention {direction}, {place}, {name}'
                yield from _kernel_rows(what, direction, inputs, bandwidth, device)


def _kernel_rows(
    what: str, direction: str, inputs: tuple[Tensor, ...], bandwidth: float, device: str
) -> Iterator[Row]:
    """Every backend against the floor, and the fastest against every rival."""
    best = math.inf
    dtype = inputs[1].dtype
    for backend in backends_on(device):
        if reason := usable(backend, device, dtype):
            yield Row(f'{what}, {backend}', 'the bandwidth floor', None, note=reason)
            continue
        with forced(backend):
            variants = list(_variants(backend, direction, inputs))
        for variant, variables, moved, run in variants:
            with forced(backend, **variables):
                spent = device_milliseconds(run, device)
            if not variables:  # what users get without asking for it
                best = min(best, spent)
            floor = 1000 * bytes_to_move(moved, direction) / bandwidth
            note = f'{1000 * spent:.0f} us against {1000 * floor:.0f} us'
            against, share = 'the bandwidth floor', floor / spent
            yield Row(f'{what}, {backend}{variant}', against, share, note=note, unit='%')
    for rival in GPU_ATTENTION:
        if rival.missing:
            yield Row(what, rival.name, None, None, 1, rival.missing)
            continue
        try:
            theirs = device_milliseconds(_rival(rival.build, direction, inputs), device)
        except Exception as error:  # of a program of others: not every one has every dtype
            yield Row(what, rival.name, None, None, 1, f'failed: {error!r}'[:200])
            continue
        note = f'{1000 * best:.0f} us against {1000 * theirs:.0f} us'
        yield Row(what, rival.name, theirs / best, None, 1, note)


def _variants(
    backend: str, direction: str, inputs: tuple[Tensor, ...]
) -> Iterator[tuple[str, dict[str, str], tuple[Tensor, ...], Callable[[], object]]]:
    """Ways of a backend to compute a pass: name, environment variables, inputs and the work."""
    grad, value = inputs[:2]
    given = inputs if direction == 'backward' else inputs[1:]
    yield '', {}, inputs, partial(getattr(attention, direction), *given)
    if backend != 'triton':
        return
    if direction == 'backward' and value.dtype != torch.float32 and has_wide_atomics(value.device):
        native = {'MPVIT_MSDA_ATOMICS': 'native'}
        yield ', sums in low precision', native, inputs, partial(attention.backward, *given)
    whole = fused_inputs(inputs)
    moved = (grad, value, whole[1], *whole[3:])
    if direction == 'forward':
        yield ' with softmax and locations', {}, moved, partial(fused.forward, *whole)
    else:
        output = fused.forward(*whole)
        work = partial(fused.backward, grad, output, *whole, False)
        yield ' with softmax and locations', {}, moved, work


def has_wide_atomics(device: torch.device) -> bool:
    """Whether the GPU adds 16 bytes at once."""
    return device.type == 'cuda' and torch.cuda.get_device_capability(device) >= (9, 0)


def fused_inputs(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Values, sizes, reference points, offsets and logits of the samples of `make_op_inputs`.

    The weights of a query and head become such that their sum is 1.
    """
    _, value, shapes, locations, weights = inputs
    points = locations.mean((2, 4))
    offsets = (locations - points[:, :, None, :, None]) * shapes.flip(-1)[:, None]
    return value, shapes, points, offsets.to(value.dtype), weights.log()


def _rival(
    operator: Callable[..., Tensor], direction: str, inputs: tuple[Tensor, ...]
) -> Callable[[], object]:
    """One pass of a differentiable operator."""
    grad, value, shapes, locations, weights = inputs
    if direction == 'forward':
        return torch.no_grad()(lambda: operator(value, shapes, locations, weights))
    leaves = [t.detach().requires_grad_() for t in (value, locations, weights)]
    output = operator(leaves[0], shapes, *leaves[1:])
    return lambda: torch.autograd.grad(output, leaves, grad, retain_graph=True)


def main() -> None:
    """Print both tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    if not torch.cuda.is_available():
        sys.exit('error: needs a CUDA device, and torch sees none')
    print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}')
    for part in (kernels, training):
        print(markdown(list(part(False, 'cuda'))), flush=True)


if __name__ == '__main__':
    main()
