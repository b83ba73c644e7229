"""What a detector takes on this machine: memory and time."""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.profiler import ProfilerActivity, profile

Size = tuple[int, int]
Inputs = tuple[Tensor, list[DetDataSample]]
_OBJECTS = 8  # in the made-up image
_WARM_UP = 2  # runs that are not timed


def made_up(size: Size, device: torch.device, batch: int = 1) -> Inputs:
    """Images of noise as they enter the backbone, and what is known about them.

    Args:
        size: Height and width in pixels.
        device: Where the images are; on 'meta' they have no content.
        batch: How many.

    Returns:
        Images of shape ``(batch, 3, height, width)``, and for each a sample with a few objects.
    """
    height, width = size
    starts = torch.linspace(0, 0.5, _OBJECTS)[:, None] * torch.tensor([width, height])
    boxes = torch.cat([starts, starts + 0.4 * torch.tensor([width, height])], dim=1)
    objects = InstanceData(bboxes=boxes, labels=torch.zeros(_OBJECTS, dtype=torch.long))
    sample = DetDataSample(gt_instances=objects)
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
    sample.set_metainfo(dict(shapes, scale_factor=(1.0, 1.0), img_id=0))
    images = torch.randn(batch, 3, height, width, device=device)
    return images, [sample.to(device) for _ in range(batch)]


def latency(
    model: nn.Module, inputs: Inputs, parts: Sequence[str], runs: int
) -> dict[str, list[float]]:
    """Time a detector in eval mode, and its parts (dotted names), from the image to detections.

    Two runs that are not timed come first.

    Returns:
        Seconds of each run by part; of the whole by the name ``''``. A part that is not called has
        zeros.
    """
    device = inputs[0].device
    started: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in ('', *parts)}

    def enter(name: str) -> None:
        started[name] = _now(device)

    def leave(name: str) -> None:
        times[name][-1] += _now(device) - started[name]

    with _hooked(model, times, enter, leave):
        for _ in range(_WARM_UP + runs):
            for seconds in times.values():
                seconds.append(0.0)
            predict(model, inputs)
    return {name: seconds[_WARM_UP:] for name, seconds in times.items()}


@torch.no_grad()
def predict(model: nn.Module, inputs: Inputs) -> None:
    """Detect in an image."""
    image, samples = inputs
    model(image, [sample.clone() for sample in samples], mode='predict')


def peak_memory(action: Callable[[], object], device: torch.device) -> int:
    """Bytes that an action adds at its peak to what is allocated on a GPU or the CPU.

    On the CPU these are the allocations that torch's profiler sees: tensors and work space of
    torch's own, not that inside oneDNN and compiled kernels.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # it tells of every start, and of missing GPUs
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    sizes = [event['args'] for event in events if event['name'] == '[memory]']
    if not sizes:
        return 0
    totals = [size['Total Allocated'] for size in sizes if size['Device Type'] == 0]
    return max(totals) - (sizes[0]['Total Allocated'] - sizes[0]['Bytes'])


def kept_for_backward(model: nn.Module, inputs: Inputs, parts: Sequence[str]) -> dict[str, int]:
    """Bytes of the tensors that the losses of an image keep for the backward pass.

    They are counted as they are kept and thrown away at once, so this takes no more memory than
    inference. Parameters and buffers do not count. The model is left in training mode.

    Returns:
        Bytes by part; of the whole by the name ``''``.
    """
    own = [*model.parameters(), *model.buffers()]
    # a weak reference keeps the address of a storage from being used again
    seen = {StorageWeakRef(tensor.untyped_storage()) for tensor in own}
    kept = dict.fromkeys(('', *parts), 0)
    inside: set[str] = set()

    def pack(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        if reference not in seen:
            seen.add(reference)
            for name in inside:
                kept[name] += storage.nbytes()

    model.train()
    image, samples = inputs
    with _hooked(model, kept, inside.add, inside.discard), saved_tensors_hooks(pack, _never):
        model(image, [sample.clone() for sample in samples], mode='loss')
    return kept


def available_memory(device: torch.device) -> float:
    """Bytes that this process can still allocate on a device; infinite where it cannot be told."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    try:
        info = Path('/proc/meminfo').read_text().split()
        free = int(info[info.index('MemAvailable:') + 1]) * 1024
    except (OSError, ValueError):
        return math.inf
    try:  # a container may have less
        limit, used = (
            int(Path(f'/sys/fs/cgroup/memory.{name}').read_text()) for name in ('max', 'current')
        )
    except (OSError, ValueError):
        return free
    return min(free, limit - used)


@contextmanager
def _hooked(
    model: nn.Module,
    names: Iterable[str],
    enter: Callable[[str], None],
    leave: Callable[[str], None],
) -> Iterator[None]:
    """Call functions with the name of a module whenever its forward pass begins and ends."""
    handles = []
    for name in names:
        module = model.get_submodule(name)
        handles += [
            module.register_forward_pre_hook(lambda *_, name=name: enter(name)),
            module.register_forward_hook(lambda *_, name=name: leave(name)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _now(device: torch.device) -> float:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _never(packed: object) -> Tensor:
    raise RuntimeError('the tensors of this forward pass were not kept')
