"""What others offer for the same task, and the R50 detector against theirs with the same weights.

A new rival is an entry of one of the two lists, with the function that makes its action. What
imports mmdet is imported in functions: most of the processes do without.
"""

import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._machine import has_bf16
from benchmarks._synthetic import FULL, image_tensor
from benchmarks._timing import STOCK, Action, Contender, Row, in_turn
from mpvit.checkpoints.coco_categories import COCO_IDS, OFFICIAL_CHANNELS
from mpvit.checkpoints.conversion import to_hugging_face

CONFIG = 'r50_ddetr_50e'
EXPORTED = (640, 640)


@dataclass(frozen=True)
class Rival:
    """What we are compared with.

    Attributes:
        name: As it stands in the table.
        package: What has to be installed for it, by the name of its import.
        build: Of attention: takes values, shapes, locations and weights as
            `mpvit.ops.msda.op.ms_deform_attn` does, and gives its output, differentiable. Of a
            detector: makes the action from the arguments of `rows`.
        targets: Ratios to be reached.
        dtype: The precision of ours that it is compared with.
    """

    name: str
    package: str
    build: Callable[..., Any]
    targets: tuple[float | None, ...] = (None,)
    dtype: str = 'fp32'

    @property
    def missing(self) -> str | None:
        """Why it cannot be measured here."""
        if find_spec(self.package) is None:
            return f'{self.package} is not installed'
        if self.dtype == 'bf16' and not has_bf16():
            return 'this CPU has no bf16 arithmetic'
        return None


def mmcv_attention(*inputs: Tensor) -> Tensor:
    """The version of mmcv that runs where mmcv is not compiled, in PyTorch."""
    from mpvit.ops import mmcv_bridge

    mmcv_bridge.install()
    with mmcv_bridge.stock_attention():
        from mmcv.ops import multi_scale_deform_attn

        return multi_scale_deform_attn.multi_scale_deformable_attn_pytorch(*inputs)


def compiled_attention(value: Tensor, shapes: Tensor, *rest: Tensor) -> Tensor:
    """The operator of torch-ms-deform-attn, in C++ for CPUs and in CUDA."""
    from torch_ms_deform_attn import ms_deform_attn

    sizes = shapes.prod(1)
    return ms_deform_attn(value, shapes, sizes.cumsum(0) - sizes, *rest)


def deformops_attention(value: Tensor, shapes: Tensor, *rest: Tensor) -> Tensor:
    """The operator of deformops: Triton or CUDA on a GPU, plain PyTorch elsewhere."""
    from deformops.registry import msda

    sizes = shapes.prod(1)
    return msda(value, shapes, sizes.cumsum(0) - sizes, *rest)


def hugging_face(weights: dict[str, Tensor]) -> nn.Module:
    """The detector of transformers with our weights; needs no download.

    Args:
        weights: State dict of a ResNet-50 detector of ours that is not folded.
    """
    os.environ['HF_HUB_OFFLINE'] = '1'
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

    theirs, _ = to_hugging_face({'state_dict': weights})
    config = DeformableDetrConfig(
        num_labels=OFFICIAL_CHANNELS,
        num_queries=len(weights['query_embedding.weight']),
        encoder_layers=_count(r'encoder\.layers\.(\d+)\.', weights),
        decoder_layers=_count(r'decoder\.layers\.(\d+)\.', weights),
    )
    model = DeformableDetrForObjectDetection.from_pretrained(None, config=config, state_dict=theirs)
    return model.eval()


def _count(pattern: str, weights: dict[str, Tensor]) -> int:
    return 1 + max(int(found[1]) for found in map(re.compile(pattern).match, weights) if found)


def hugging_face_outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Logits of our classes and relative boxes of transformers' model for normalised images."""
    with torch.no_grad():
        outputs = model(pixel_values=images)
    return [outputs.logits[..., COCO_IDS], outputs.pred_boxes]


def hugging_face_action(quick: bool, size: tuple[int, int], file: Path) -> Action:
    """Inference with transformers; ``file`` is of no use to it."""
    from benchmarks.models import config_of, our_model

    model = hugging_face(our_model(config_of(CONFIG, quick)).state_dict())
    images = image_tensor(size)
    return lambda: hugging_face_outputs(model, images)


def onnxruntime_action(quick: bool, size: tuple[int, int], file: Path) -> Action:
    """The exported stock detector in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, ['CPUExecutionProvider'])
    inputs = {session.get_inputs()[0].name: image_tensor(size).numpy()}
    return lambda: session.run(None, inputs)


def openvino_action(precision: str, quick: bool, size: tuple[int, int], file: Path) -> Action:
    """The exported stock detector in OpenVINO.

    Args:
        precision: ``'f32'``, or ``'bf16'``, which it chooses by itself where the CPU has it.
        quick: Of no use here.
        size: Height and width of the image.
        file: ONNX file.
    """
    import openvino

    settings = {
        'INFERENCE_PRECISION_HINT': precision,
        'INFERENCE_NUM_THREADS': torch.get_num_threads(),
        'PERFORMANCE_HINT': 'LATENCY',
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(file), 'CPU', settings).create_infer_request()
    images = image_tensor(size).numpy()

    def run() -> list[np.ndarray]:
        results = request.infer([images])
        return [results[0].copy(), results[1].copy()]

    return run


_COMPILED = Rival('torch-ms-deform-attn', 'torch_ms_deform_attn', compiled_attention, (2.5, 3))
#: Deformable attention; targets of the forward pass, and of both passes together.
ATTENTION = (Rival("mmcv's version in PyTorch", 'mmcv', mmcv_attention, (10, 8)), _COMPILED)
#: Deformable attention on a GPU, where mmcv's compiled op is a backend of ours.
GPU_ATTENTION = (Rival('deformops', 'deformops', deformops_attention), _COMPILED)
#: Detectors with the weights of our R50 detector.
HUGGING_FACE = Rival('transformers (Hugging Face)', 'transformers', hugging_face_action, (2,))
DETECTORS = (
    HUGGING_FACE,
    Rival('stock model in onnxruntime', 'onnxruntime', onnxruntime_action, (1,)),
    Rival('stock model in OpenVINO, fp32', 'openvino', partial(openvino_action, 'f32'), (1,)),
    Rival(
        'stock model in OpenVINO, bf16', 'openvino', partial(openvino_action, 'bf16'), (1,), 'bf16'
    ),
)


class _Raw(nn.Module):
    """From the image to logits and boxes of the last decoder layer."""

    def __init__(self, run: Callable[[Tensor], tuple[Tensor, Tensor]], model: nn.Module) -> None:
        super().__init__()
        self.run, self.model = run, model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(1, 3, H, W)``."""
        return self.run(images)


def write_stock(quick: bool, size: tuple[int, int], file: Path) -> None:
    """Write the stock detector as ONNX, as a user of PyTorch alone would."""
    from benchmarks.models import (
        config_of,
        on_stock_attention,
        our_model,
        raw_outputs,
        stock_model,
    )

    config = config_of(CONFIG, quick)
    model = stock_model(config, our_model(config).state_dict())
    graph = _Raw(lambda images: raw_outputs(model, size, images), model).eval()
    settings: dict[str, Any] = dict(opset_version=17, dynamo=False)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the tracer asks whether shapes may be constants: they may
        on_stock_attention(
            lambda: torch.onnx.export(graph, (image_tensor(size),), str(file), **settings)
        )()


def our_action(quick: bool, size: tuple[int, int], dtype: str) -> Action:
    """Our detector, as far as the others go: logits and boxes."""
    from benchmarks.models import config_of, our_model, prepared, raw_outputs

    model, images = prepared(our_model(config_of(CONFIG, quick)), dtype), image_tensor(size)
    return lambda: raw_outputs(model, size, images)


def compared(rivals: tuple[Rival, ...], quick: bool, size: tuple[int, int]) -> Iterator[Row]:
    """Ours and rivals at one size."""
    present = [rival for rival in rivals if not rival.missing]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'stock.onnx'
        if any(rival is not HUGGING_FACE for rival in present) and find_spec('onnx'):
            write_stock(quick, size, file)
        contenders = {
            **{d: Contender(our_action, (quick, size, d)) for d in {r.dtype for r in present}},
            **{r.name: Contender(r.build, (quick, size, file), STOCK) for r in present},
        }
        turns = in_turn(contenders, 2 if quick else 7, 80)
    for rival in rivals:
        what = f'R50 detector, {size[0]}x{size[1]}, {rival.dtype}'
        target = rival.targets[0]
        if rival.missing:
            yield Row(what, rival.name, None, None, target, rival.missing)
            continue
        note = ''
        if {rival.name, rival.dtype} <= turns.outputs.keys():
            pairs = zip(turns.outputs[rival.dtype], turns.outputs[rival.name], strict=True)
            logits, boxes = (float(np.abs(a - b).max()) for a, b in pairs)
            note = f'logits differ by {logits:.0e}, boxes by {boxes:.0e} of the image'
        yield turns.row(what, rival.name, (rival.dtype, rival.name), target, note)


def rows(quick: bool) -> Iterator[Row]:
    """Time of inference, from the normalised image to logits and boxes."""
    yield from compared((HUGGING_FACE,), quick, (128, 160) if quick else FULL)
    yield from compared(DETECTORS[1:], quick, (128, 128) if quick else EXPORTED)
