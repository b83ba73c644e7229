"""The ResNet-50 detector in PyTorch against the stock model exported to OpenVINO, both fp32."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._timing import Row, main, paired
from benchmarks.models import (
    config_of,
    image_tensor,
    on_stock_attention,
    our_model,
    prepared,
    raw_outputs,
    stock_model,
)


class _Raw(nn.Module):
    """From the image to logits and boxes of the last decoder layer."""

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(1, 3, H, W)``."""
        return raw_outputs(self.model, self.size, images)


def openvino_outputs(
    model: nn.Module, size: tuple[int, int]
) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Export through ONNX, and run in OpenVINO in fp32 on as many threads as torch has.

    Args:
        model: Stock detector.
        size: Height and width of the image in pixels.

    Returns:
        What computes logits and boxes.
    """
    import openvino

    images = image_tensor(size)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the tracer asks whether shapes may be constants: they may
        path = Path(folder) / 'detector.onnx'
        export = on_stock_attention(
            lambda: torch.onnx.export(
                _Raw(model, size).eval(), (images,), path, opset_version=17, dynamo=False
            )
        )
        export()
        network = openvino.Core().read_model(path)
        settings = {
            'INFERENCE_PRECISION_HINT': 'f32',
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            'PERFORMANCE_HINT': 'LATENCY',
        }
        compiled = openvino.Core().compile_model(network, 'CPU', settings)
    request, array = compiled.create_infer_request(), images.numpy()

    def run() -> tuple[np.ndarray, np.ndarray]:
        results = request.infer([array])
        return results[0], results[1]

    return run


def rows(quick: bool) -> list[Row]:
    """Time from the normalised image to the outputs of the last layer."""
    size = (128, 128) if quick else (640, 640)
    config = config_of('r50_ddetr_50e', quick)
    plain = our_model(config)
    ours = prepared(plain)
    theirs = openvino_outputs(stock_model(config, plain.state_dict()), size)
    pairs = zip(raw_outputs(ours, size), theirs(), strict=True)
    logits, boxes = (float(np.abs(a.numpy() - b).max()) for a, b in pairs)
    note = f'logits differ by {logits:.0e}, boxes by {boxes:.0e} of the image'
    images = image_tensor(size)
    return [
        paired(
            lambda: raw_outputs(ours, size, images), theirs, runs=3 if quick else 9, warmup=2
        ).row(
            f'R50 detector, {size[0]}x{size[1]}, fp32, in PyTorch',
            'stock model exported to OpenVINO fp32',
            1,
            note,
        )
    ]


if __name__ == '__main__':
    main(rows, __doc__)
