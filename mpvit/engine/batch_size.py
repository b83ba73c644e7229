"""`--batch-size auto`: the largest batch whose training step fits the memory of the GPU."""

import copy
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import nn

from mpvit.config.stored import stored_entries
from mpvit.engine.hooks import detector_of
from mpvit.engine.randomness import seed_sample
from mpvit.engine.runner import newest_checkpoint
from mpvit.errors import UserError

_SAMPLES = 32  # of the training data, whose largest height, width and number of boxes are tried
_MARGIN = 0.1  # of the GPU's memory: fragments, and batches with more boxes
_STATES = 3  # numbers beside each weight and its gradient: two of AdamW, one of an average (EMA)
_NO_MEMORY = re.compile('out of memory|ALLOC_FAILED')


def choose_batch(runner: Runner) -> None:
    """Set how many images each process takes at once, and after how many batches weights change.

    On a GPU, training steps with more and more images are tried, and the gradients of as many
    batches are added up as give the images of a step that the recipe is made for
    (``auto_scale_lr.base_batch_size``, or else the config's batch on each process). All processes
    take what fits on all of them. On a CPU the batch of the config stays. A training that is
    resumed has the batch it had, because only so it goes on exactly.

    To be called before the training loop is built. Weights, statistics and random numbers are the
    same afterwards.

    Raises:
        UserError: Not even one image fits, or a checkpoint does not tell the batch of its training.
    """
    checkpoint = _resumed(runner)
    if checkpoint is not None:
        batch, counts = batch_of(checkpoint)
        why = 'as in the training that is resumed'
    else:
        batch, counts, why = _found(runner)
    for loader in (runner.cfg.train_dataloader, runner._train_dataloader):
        loader['batch_size'] = batch
    for wrapper in (runner.cfg.optim_wrapper, runner.optim_wrapper):
        wrapper['accumulative_counts'] = counts
    line = f'--batch-size auto: {batch} a process, {why}'
    runner.logger.info(line)
    runner.notes = (*getattr(runner, 'notes', ()), line)


def batch_of(checkpoint: Path) -> tuple[int, int]:
    """Images that a process took at once, and batches of a step, in the training of a checkpoint.

    Raises:
        UserError: It does not say.
    """
    entries = stored_entries(checkpoint)
    try:
        batch = int(entries['train_dataloader']['batch_size'])
        return batch, int(entries['optim_wrapper'].get('accumulative_counts', 1))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{checkpoint} does not say with which batch size it was trained, which --resume '
            'needs; give --batch-size N'
        ) from error


def largest_batch(step: Callable[[int], object], sizes: Sequence[int]) -> int:
    """The largest batch, of ascending ``sizes``, for which a step finds memory; 0 if none does."""
    found = 0
    for size in sizes:
        if not _fits(step, size):
            break
        found = size
    return found


def _resumed(runner: Runner) -> Path | None:
    """The checkpoint that a training goes on from, if it does."""
    resume, named = runner._resume, runner._load_from
    if resume == 'auto' or (resume and named is None):
        return newest_checkpoint(runner.work_dir, runner)
    return Path(named) if resume and named is not None else None


def _found(runner: Runner) -> tuple[int, int, str]:
    """Images of a batch, batches of a step, and why."""
    cfg = runner.cfg
    dataset = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))
    most = max(1, len(dataset) // runner.world_size)
    batch, counts = cfg.train_dataloader.batch_size, cfg.optim_wrapper.get('accumulative_counts', 1)
    if _device(runner).type != 'cuda':
        why = 'as in the config' if batch <= most else 'all images that there are'
        return min(batch, most), counts, f'{why}; only the memory of a GPU is tried out'
    scaling = cfg.get('auto_scale_lr') or {}
    images = scaling.get('base_batch_size') or batch * counts * runner.world_size
    share = min(most, max(1, round(images / runner.world_size)))
    sizes = [size for size in range(1, share + 1) if share % size == 0]  # so that a step is exact
    with untouched(detector_of(runner)):
        sample = largest_sample(dataset)
        del dataset
        height, width = sample['inputs'].shape[-2:]
        fits = torch.tensor(largest_batch(training_step(runner, sample), sizes))
    all_reduce(fits, 'min')
    best = int(fits)
    if best == 0:
        raise UserError(
            f'--batch-size auto: not even one image of {width} x {height} px fits the GPU; use a '
            'smaller --image-size, --amp, or recompute (docs/train.md, Speed and memory)'
        )
    more = [size for size in sizes if size > best]
    reason = f'{more[0]} do not fit' if more else 'all of a step'
    return best, share // best, f'images of up to {width} x {height} px; {reason}'


def _device(runner: Runner) -> torch.device:
    return next(detector_of(runner).parameters()).device


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave a model and all random numbers as they were, apart from weights.

    Processes do not wait for each other within: one may run out of memory where another does not.
    """
    training = model.training
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    python, numpy = random.getstate(), np.random.get_state()
    devices = {p.device for p in model.parameters() if p.is_cuda}
    # what is_initialized() says decides whether mmengine, mmdet and SyncBN communicate
    alone = patch.object(torch.distributed, 'is_initialized', lambda: False)
    try:
        with torch.random.fork_rng(devices), alone:
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        model.train(training)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        if devices:
            torch.cuda.empty_cache()


def largest_sample(dataset: Any) -> dict[str, Any]:
    """A sample as large as any that a training pipeline makes, going by a few dozen of them.

    Images of a batch are padded to the greatest height and the greatest width among them, so this
    one has both, with the boxes of the sample that has most.
    """
    step = max(1, len(dataset) // _SAMPLES)
    samples = []
    for index in range(0, len(dataset), step)[:_SAMPLES]:
        seed_sample(0, (index,))  # the same on all processes
        samples.append(dataset[index])
    sizes = [sample['inputs'].shape[-2:] for sample in samples]
    height, width = (max(lengths) for lengths in zip(*sizes, strict=True))
    sample = max(samples, key=lambda sample: _count(sample['data_samples']))
    image = sample['inputs']
    sample['data_samples'].set_metainfo(dict(img_shape=(height, width)))
    return dict(sample, inputs=image.new_zeros((*image.shape[:-2], height, width)))


def _count(sample: Any) -> int:
    return len(sample.gt_instances) if 'gt_instances' in sample else 0


def training_step(runner: Runner, sample: dict[str, Any]) -> Callable[[int], None]:
    """A training step, but for the change of weights, on copies of a sample, by their number."""
    model: Any = detector_of(runner)
    device = _device(runner)
    # never complete: gradients are added up and nothing is updated
    settings = dict(copy.deepcopy(runner.cfg.optim_wrapper), accumulative_counts=2**30)
    wrapper = runner.build_optim_wrapper(settings)
    weights = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)

    def step(size: int) -> None:
        reserve = _reserve(device, _STATES * weights)
        model.train()
        for _ in range(2):  # the second has the gradients of the first beside it
            samples = [copy.deepcopy(sample) for _ in range(size)]
            batch = {key: [one[key] for one in samples] for key in sample}
            model.train_step(batch, wrapper)
        wrapper.zero_grad()
        del reserve

    return step


def _reserve(device: torch.device, size: int) -> torch.Tensor | None:
    """Memory that a training needs beside its steps, in bytes, and the margin."""
    if device.type != 'cuda':
        return None
    total = torch.cuda.mem_get_info(device)[1]
    return torch.empty(size + int(_MARGIN * total), dtype=torch.uint8, device=device)


def _fits(step: Callable[[int], object], size: int) -> bool:
    try:
        step(size)
    except RuntimeError as error:  # OutOfMemoryError, and those of cuDNN and cuBLAS
        if not (isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY.search(str(error))):
            raise
        return False
    return True
