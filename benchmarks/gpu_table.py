"""Training speed and memory on a GPU, and the attention op against the memory bandwidth.

By backend of deformable attention, on one GPU: ``python -m benchmarks.gpu_table``. Images are
800 x 1333 px of noise with 10 boxes each. Prints two tables.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

import mpvit.register  # noqa: F401  (makes mmdet importable)
from mpvit.config.presets import enable_amp
from mpvit.ops.msda import op as attention
from mpvit.ops.msda import selection as choice

CONFIG = Path(__file__).parents[1] / 'configs' / 'deformable_detr' / 'mpvit_s_ddetr_50e.py'
BACKENDS = ('cuda', 'triton', 'reference')
PRECISIONS = {'fp32': None, 'AMP fp16': 'fp16', 'AMP bf16': 'bf16'}
DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
SIZE = (800, 1333)
LEVELS = ((100, 167), (50, 84), (25, 42), (13, 21))  # of that size at strides 8 to 64


@contextmanager
def forced(backend: str) -> Iterator[None]:
    """While it lasts, deformable attention runs on one backend, also under a complete mmcv."""
    before = os.environ.get(attention.VARIABLE)
    os.environ[attention.VARIABLE] = backend
    try:
        yield
    finally:
        del os.environ[attention.VARIABLE]
        if before is not None:
            os.environ[attention.VARIABLE] = before


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
    model = MODELS.build(cfg.model)
    model.init_weights()
    if amp:
        enable_amp(cfg, amp)
    model = model.to(device).train()
    return model, build_optim_wrapper(model, cfg.optim_wrapper)


def make_batch(size: tuple[int, int], images: int, device: str) -> dict:
    """Noise with 10 boxes an image, as the data loader would hand it over.

    Args:
        size: Height and width in pixels.
        images: Number of images.
        device: Where to.
    """
    from mmdet.structures import DetDataSample

    height, width = size
    generator = torch.Generator().manual_seed(0)
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


def steps_per_second(step: Callable[[], object], warm_up: int = 3, repeats: int = 10) -> float:
    """Of a piece of work on the GPU, from the median time."""
    times = []
    for _ in range(warm_up + repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1 / statistics.median(times[warm_up:])


def training_cell(backend: str, amp: str | None, images: int) -> str:
    """Images per second and peak memory of training steps, or why there are none."""
    reason = attention.unavailable(backend, torch.device('cuda'), DTYPES[amp or 'fp32'])
    if reason:
        return reason
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        with forced(backend):
            model, optimizer = build(CONFIG, amp, 'cuda')
            batch = make_batch(SIZE, images, 'cuda')
            speed = images * steps_per_second(lambda: model.train_step(batch, optimizer))
    except torch.OutOfMemoryError:
        return 'out of memory'
    return f'{speed:.2f} images/s, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB'


def make_op_inputs(dtype: torch.dtype, device: str, levels: tuple = LEVELS) -> tuple[Tensor, ...]:
    """Gradient and inputs of the op as in the encoder: every position asks near itself."""
    generator = torch.Generator().manual_seed(0)
    queries = sum(h * w for h, w in levels)
    centres = [
        torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w).flip(1)
        for h, w in levels
    ]
    spread = 0.03 * torch.randn(1, queries, 8, len(levels), 4, 2, generator=generator)
    locations = torch.cat(centres)[None, :, None, None, None] + spread
    weights = torch.rand(locations.shape[:-1], generator=generator) / (4 * len(levels))
    value = torch.randn(1, queries, 8, 32, generator=generator)
    grad = torch.randn(1, queries, 256, generator=generator)
    tensors = (grad.to(dtype), value.to(dtype), torch.tensor(levels), locations, weights.to(dtype))
    return tuple(t.to(device) for t in tensors)


def bytes_to_move(inputs: tuple[Tensor, ...], direction: str) -> int:
    """What must be read and written at least, once each."""
    grad, value, _, locations, weights = inputs
    size = [t.numel() * t.element_size() for t in (value, locations, weights, grad)]
    if direction == 'forward':
        return sum(size)  # the output is as large as its gradient
    return sum(size) + sum(size[:3])


def copied_bytes_per_second(device: str = 'cuda') -> float:
    """Bytes read and written by a copy of 1 GiB, per second."""
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / (choice.cuda_milliseconds(lambda: target.copy_(source)) / 1000)


def op_rows() -> Iterator[str]:
    """Time of the op by backend, dtype and direction against the floor."""
    bandwidth = copied_bytes_per_second()
    yield f'copy bandwidth {bandwidth / 1e9:.0f} GB/s'
    yield '| direction | values | backend | ms | floor, ms | times the floor |'
    yield '|---|---|---|---|---|---|'
    for name, dtype in DTYPES.items():
        inputs = make_op_inputs(dtype, 'cuda')
        for direction in ('forward', 'backward'):
            floor = 1000 * bytes_to_move(inputs, direction) / bandwidth
            for backend in BACKENDS:
                if attention.unavailable(backend, torch.device('cuda'), dtype):
                    continue
                function = getattr(attention, direction)
                given = inputs if direction == 'backward' else inputs[1:]
                with forced(backend):
                    spent = choice.cuda_milliseconds(lambda f=function, g=given: f(*g))
                cells = (direction, name, backend, f'{spent:.3f}', f'{floor:.3f}')
                yield f'| {" | ".join(cells)} | {spent / floor:.1f} |'


def main() -> None:
    """Print both tables."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if not torch.cuda.is_available():
        sys.exit('error: needs a CUDA device, and torch sees none')
    print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}, {CONFIG.stem}, {SIZE} px')
    print('| precision | batch | ' + ' | '.join(BACKENDS) + ' |')
    print('|---' * (2 + len(BACKENDS)) + '|')
    for precision, amp in PRECISIONS.items():
        for images in (2, 4):
            cells = [training_cell(backend, amp, images) for backend in BACKENDS]
            print(f'| {precision} | {images} | {" | ".join(cells)} |', flush=True)
    for line in op_rows():
        print(line, flush=True)


if __name__ == '__main__':
    main()
