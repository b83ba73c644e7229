"""What the plan of `benchmarks/scale.py` stands on, measured without a GPU.

Run `python -m benchmarks.scale_inputs`. FLOPs and live memory of training steps at two small
sizes, from which lines over the pixels are drawn; sizes of the model; memory and time of
annotations. Counts, not timings, except where it says seconds.
"""

import argparse
import gc
import json
import multiprocessing
import resource
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mpvit.config.reading import load_config

CONFIGS = Path(__file__).resolve().parent.parent / 'configs' / 'deformable_detr'
OURS, PUBLISHED = 'mpvit_s_ddetr_50e', 'r50_ddetr_50e'
# Lines go through these: multiples of the largest stride, so that nothing is rounded.
SIZES, SMALL_SIZES = ((128, 192), (192, 256)), ((64, 128), (128, 192))
BATCH = 2
VARIANTS = {  # of memory: overrides, autocast to bfloat16
    'fp32': ((), False),
    'fp32, backbone.with_cp': (('model.backbone.with_cp=True',), False),
    'fp32, encoder.num_cp=6': (('model.encoder.num_cp=6',), False),
    'fp32, both': (('model.backbone.with_cp=True', 'model.encoder.num_cp=6'), False),
    'bf16': ((), True),
    'bf16, both': (('model.backbone.with_cp=True', 'model.encoder.num_cp=6'), True),
}


class LivePeak(TorchDispatchMode):
    """Largest sum of bytes of the tensors made while it is active and alive at one time.

    On a GPU the allocator also counts what an operation needs inside itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note the storages that it made."""
        result = func(*args, **(kwargs or {}))
        inputs = {t.untyped_storage() for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)}
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor):
                self._note(tensor.untyped_storage(), inputs)
        return result

    def _note(self, storage: Any, inputs: set) -> None:
        if storage in self._known or storage in inputs:
            return
        self._known.add(storage)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.live -= size


def detector(name: str, options: Sequence[str] = ()) -> nn.Module:
    """A detector of configs/deformable_detr in training mode, without pretrained weights.

    Args:
        name: File name of the config without its ending.
        options: Overrides as on the command line.
    """
    config = load_config(CONFIGS / f'{name}.py', list(options))
    init_default_scope('mmdet')
    config.model.backbone.pop('init_cfg', None)
    MMLogger.get_current_instance().setLevel('WARNING')  # it lists every parameter
    model = MODELS.build(config.model)
    model.init_weights()
    return model.train()


def training_loss(model: nn.Module, size: tuple[int, int], bf16: bool = False) -> torch.Tensor:
    """The loss of a batch of noise with seven boxes an image.

    Args:
        model: A detector.
        size: Height and width in pixels.
        bf16: Compute under autocast to bfloat16.
    """
    height, width = size
    samples = []
    for _ in range(BATCH):
        corners = torch.rand(7, 2, 2).sort(dim=1).values.flatten(1)
        boxes = corners * torch.tensor([width, height] * 2)
        sample = DetDataSample(
            gt_instances=InstanceData(bboxes=boxes, labels=torch.zeros(7, dtype=torch.long)),
            metainfo=dict(img_shape=size, ori_shape=size, batch_input_shape=size),
        )
        samples.append(sample)
    with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        losses = model.loss(torch.randn(BATCH, 3, *size), samples)
    total: torch.Tensor = model.parse_losses(losses)[0]
    return total


def forward_flops(model: nn.Module, size: tuple[int, int]) -> float:
    """FLOPs of the forward pass per image, two for a multiply-add.

    Those of PyTorch's counter (matrix products, convolutions) plus deformable attention, which it
    does not know. Its count of backward passes is not used: it ignores the groups of depthwise
    convolutions.
    """
    with FlopCounterMode(display=False) as counter:
        training_loss(model, size)
    return counter.get_total_flops() / BATCH + attention_flops(size)


def attention_flops(size: tuple[int, int], queries: int = 300, layers: int = 6) -> float:
    """FLOPs per image of sampling in encoder and decoder: 256 channels, 4 levels of 4 points.

    A sample is 4 corners, each a multiply-add, and is weighted and summed by one more.
    """
    tokens = sum((size[0] // stride) * (size[1] // stride) for stride in (8, 16, 32, 64))
    per_query = 256 * 16 * (4 * 2 + 2)
    return layers * (tokens + queries) * per_query


def step_peak(model: nn.Module, size: tuple[int, int], bf16: bool) -> float:
    """Peak of live bytes of forward and backward per image, without weights and gradients."""
    for parameter in model.parameters():  # made beforehand, so not counted
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    gc.collect()
    with LivePeak() as memory:
        training_loss(model, size, bf16).backward()
    return memory.peak / BATCH


def line(
    measure: Callable[[tuple[int, int]], float], sizes: Sequence[tuple[int, int]] = SIZES
) -> tuple[float, float]:
    """Constant and slope over the pixels of an image, through two sizes."""
    few, many = (height * width for height, width in sizes)
    low, high = (measure(size) for size in sizes)
    slope = (high - low) / (many - few)
    return low - slope * few, slope


def flop_line(name: str) -> tuple[float, float]:
    """Line of the FLOPs of the forward pass per image."""
    model = revert_sync_batchnorm(detector(name))
    return line(lambda size: forward_flops(model, size))


def memory_line(name: str, options: Sequence[str], bf16: bool) -> tuple[float, float]:
    """Line of the live bytes per image at the peak of a step.

    Args:
        name: File name of the config without its ending.
        options: Overrides.
        bf16: Under autocast, at smaller sizes: few CPUs compute in bfloat16.
    """
    model = revert_sync_batchnorm(detector(name, options))
    return line(lambda size: step_peak(model, size, bf16), SMALL_SIZES if bf16 else SIZES)


def model_sizes(name: str) -> dict[str, int]:
    """Trainable parameters, gradient tensors, and synchronised batch norms with their channels."""
    model = detector(name)
    trained = [p for p in model.parameters() if p.requires_grad]
    norms = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm)]
    return dict(
        parameters=sum(p.numel() for p in trained),
        tensors=len(trained),
        sync_norms=len(norms),
        sync_channels=sum(m.num_features for m in norms),
    )


def write_annotations(path: Path, images: int, boxes: int, classes: list[str]) -> None:
    """Write made-up boxes in COCO's format, without masks, as Objects365 has them."""
    entries = [
        dict(id=i, file_name=f'patch{i // 40000}/objects_v2_{i:08d}.jpg', height=480, width=640)
        for i in range(1, images + 1)
    ]
    found = [
        dict(
            id=i,
            image_id=i // boxes + 1,
            category_id=i % len(classes) + 1,
            bbox=[i % 300 + 0.12, i % 200 + 0.34, i % 290 + 20.56, i % 180 + 10.78],
            area=(i % 290 + 20.56) * (i % 180 + 10.78),
            iscrowd=0,
        )
        for i in range(images * boxes)
    ]
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    path.write_text(json.dumps(dict(images=entries, annotations=found, categories=categories)))


def measure_loading(path: Path, classes: list[str]) -> dict[str, float]:
    """Load a training set in this process: bytes per image kept, peak on the way, CPU seconds."""
    before, start = peak_rss(), time.process_time()
    dataset = DATASETS.build(
        dict(
            type='OfficialCocoDataset',
            ann_file=str(path),
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=classes),
            filter_cfg=dict(filter_empty_gt=False, min_size=0),
            pipeline=[],
        )
    )
    costs = dict(
        kept=dataset.data_bytes.nbytes + dataset.data_address.nbytes,
        peak=peak_rss() - before,
        seconds=time.process_time() - start,
    )
    return {what: cost / len(dataset) for what, cost in costs.items()}


def peak_rss() -> int:
    """Most memory of this process so far in bytes (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def annotation_costs(images: int, boxes: int) -> dict[str, float]:
    """Per image: bytes that a training set keeps, peak bytes and seconds of loading it.

    Args:
        images: Size of the made-up set.
        boxes: Of each image.
    """
    init_default_scope('mmdet')
    classes = [f'class {i}' for i in range(365)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'train.json'
        # a process for each, so that the peak starts at what is in memory now
        with multiprocessing.get_context('fork').Pool(1, maxtasksperchild=1) as pool:
            pool.apply(write_annotations, (path, images, boxes, classes))
            return pool.apply(measure_loading, (path, classes))


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=20000, help='of the annotation file')
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for name in (OURS, PUBLISHED):
        print(f'{name}: {model_sizes(name)}')
        print('forward FLOPs per image: {:.4g} + {:.4g} per pixel'.format(*flop_line(name)))
        sys.stdout.flush()
    for variant, (options, bf16) in VARIANTS.items():
        found = memory_line(OURS, options, bf16)
        print('live bytes per image, {}: {:.4g} + {:.4g} per pixel'.format(variant, *found))
        sys.stdout.flush()
    for boxes in (7, 15):
        print(f'an image of {boxes} boxes: {annotation_costs(arguments.images, boxes)}')


if __name__ == '__main__':
    main()
