"""Exported detectors against PyTorch: seconds an image, and the largest differences.

    python -m benchmarks.export CONFIG [CHECKPOINT] --images 20 --sizes 320x480 640x640

Exports both formats with both forms of attention, then runs every image through PyTorch (prepared,
as `tools/test.py` does) and all of the files in turn, on one image after the other. `rows` is for
the table of all benchmarks.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from benchmarks._timing import Row, paired
from benchmarks.models import (
    config_of,
    image_tensor,
    on_stock_attention,
    our_model,
    prepared,
    raw_outputs,
    stock_model,
)
from mpvit.config.reading import load_config
from mpvit.errors import UserError
from mpvit.export.comparison import TOLERANCES, detected, differences, picture
from mpvit.export.files import SUFFIXES, export
from mpvit.inference import load_detector
from mpvit.models.exported import RUNTIMES
from mpvit.ops.msda.op import EXPORTED_FORMS

TORCH = 'PyTorch'
SIZES = ('240x320', '320x240', '256x256', '300x400')


def checkpoint_of(config: str, folder: Path) -> str:
    """A checkpoint with random weights that act like trained ones."""
    cfg = load_config(config)
    init_default_scope('mmdet')
    cfg.model.backbone.pop('init_cfg', None)
    path = folder / 'random.pth'
    torch.save(dict(state_dict=our_model(cfg).state_dict()), path)
    return str(path)


def detectors(config: str, checkpoint: str, folder: Path, forms: list[str]) -> dict[str, nn.Module]:
    """PyTorch's, and those exported that pass their comparison, by name."""
    found = {TORCH: load_detector(config, checkpoint)}
    for (format, suffix), form in product(SUFFIXES.items(), forms):
        name = f'{RUNTIMES[suffix]}, {form}'
        start = time.monotonic()
        try:
            file, largest = export(
                config,
                checkpoint,
                format=format,
                target=str(folder / f'{form}{suffix}'),
                attention=form,
            )
        except UserError as error:
            print(f'{name}: {error}')
            continue
        print(f'{name}: exported in {time.monotonic() - start:.0f} s, {largest}', flush=True)
        found[name] = load_detector(config, file)
    return found


class Measured:
    """What was measured of one detector at one size."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.boxes = self.scores = 0.0
        self.lost = 0


def measure(
    models: dict[str, nn.Module], sizes: list[tuple[int, int]], images: int, seconds: float
) -> dict[tuple[tuple[int, int], str], Measured]:
    """Run images of all sizes through all detectors in turn.

    Args:
        models: By name, PyTorch's first.
        sizes: Heights and widths; the images take them in turn.
        images: How many.
        seconds: Time after which no further image starts.
    """
    generator = torch.Generator().manual_seed(1)
    results = {key: Measured() for key in product(sizes, models)}
    for size, model in product(sizes, models.values()):  # warm up
        detected(model, [picture(size, generator)], None)
    box, score, _ = TOLERANCES['fp32']
    start = time.monotonic()
    for index in range(images):
        if time.monotonic() - start > seconds:
            print(f'stopped after {index} of {images} images: out of time (--minutes)')
            break
        size = sizes[index % len(sizes)]
        image = picture(size, generator)
        expected = None
        names = list(models)[1:] if index % 2 else list(models)[:0:-1]
        for name in [TORCH, *names]:
            result = results[size, name]
            before = time.perf_counter()
            found = detected(models[name], [image], None)[0]
            result.seconds.append(time.perf_counter() - before)
            expected = expected or found
            boxes, scores, lost, _ = differences(expected, found, box * max(size), score)
            result.boxes, result.scores = max(result.boxes, boxes), max(result.scores, scores)
            result.lost += lost
    return results


def table(results: dict[tuple[tuple[int, int], str], Measured]) -> str:
    """As markdown."""
    lines = [
        '| size | | seconds an image | speed over PyTorch | boxes differ by | scores differ by |',
        '|---|---|---|---|---|---|',
    ]
    for (size, name), result in results.items():
        if not result.seconds:
            continue
        seconds = statistics.median(result.seconds)
        pairs = zip(results[size, TORCH].seconds, result.seconds, strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        lost = f'; {result.lost} detections without counterpart' if result.lost else ''
        line = f'| {size[0]}x{size[1]} | {name} | {seconds:.3g} (of {len(result.seconds)})'
        if name != TORCH:
            line += f' | {ratio:.2f}x | {result.boxes:.1e} px | {result.scores:.1e}{lost} |'
        lines.append(line if name != TORCH else f'{line} | | | |')
    return '\n'.join(lines)


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
    """What runs a stock detector in OpenVINO in fp32, exported through ONNX, as far as `_Raw`."""
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
    """The R50 detector in PyTorch against the stock model in OpenVINO, both as far as `_Raw`."""
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


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?', help='default: random weights')
    parser.add_argument('--images', type=int, default=20, help='default: 20')
    parser.add_argument('--sizes', nargs='+', default=SIZES, metavar='HxW')
    parser.add_argument('--forms', nargs='+', choices=EXPORTED_FORMS, default=[*EXPORTED_FORMS])
    parser.add_argument('--minutes', type=float, default=5, help='for measuring; default: 5')
    parser.add_argument('--threads', type=int, help='default: all cores')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    sizes = [tuple(int(n) for n in size.split('x')) for size in args.sizes]
    MMLogger.get_current_instance().setLevel('WARNING')
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or checkpoint_of(args.config, Path(folder))
        models = detectors(args.config, checkpoint, Path(folder), args.forms)
        results = measure(models, sizes, args.images, 60 * args.minutes)
    everything = [result for (_, name), result in results.items() if name != TORCH]
    print(f'\n{torch.get_num_threads()} threads, torch {torch.__version__}\n\n{table(results)}')
    print(
        f'\nLargest differences over {args.images} images at most: boxes '
        f'{max(r.boxes for r in everything):.1e} px, scores {max(r.scores for r in everything):.1e}'
    )


if __name__ == '__main__':
    main()
