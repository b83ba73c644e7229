"""Latency, loss curves, a whole training and the tests of a GPU: parts of `make gpu`."""

import copy
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

import mpvit.register  # noqa: F401  (makes mmdet importable)
from benchmarks._timing import Row
from benchmarks.gpu_table import (
    ROOT,
    SIZE,
    TINY,
    backends_on,
    build,
    forced,
    make_batch,
    seconds_of,
    synchronize,
    usable,
)
from benchmarks.models import config_of, our_model, samples_of
from mpvit.config.reading import load_config
from mpvit.engine.test import evaluate
from mpvit.engine.train import train
from mpvit.export.graph import DetectorGraph
from mpvit.inference import prepare
from mpvit.processors import available

CONFIG = 'mpvit_s_ddetr_50e'
TOY = ROOT / 'configs' / 'deformable_detr' / 'mpvit_t_ddetr_toy.py'
#: Lowest and highest box AP of `TOY` over three seeds on a CPU (docs/results.md).
CPU_AP = (0.448, 0.537)
SEED = 1
#: With what is imported before, less than the part gets in benchmarks/gpu.py.
TESTS_SECONDS = 125


def tests(quick: bool, device: str) -> Iterator[Row]:
    """What `pytest -m gpu` says of the tests in tests/test_gpu.py: a row for each function.

    With ``quick``, of one of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        chosen = ['-k', 'focal_loss'] if quick else []
        command = [sys.executable, '-m', 'pytest', '-q', '-m', 'gpu', '-p', 'no:cacheprovider']
        command += [f'--junitxml={report}', 'tests/test_gpu.py', *chosen]
        if find_spec('xdist'):
            command += ['-n', str(min(4, available()))]
        with subprocess.Popen(command, cwd=ROOT) as process:
            try:
                process.wait(TESTS_SECONDS)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)  # it still writes what it knows
                yield Row('tests', '', None, note=f'stopped after {TESTS_SECONDS} s')
        yield from outcomes(report)


def outcomes(report: Path) -> Iterator[Row]:
    """Rows from a report of pytest in JUnit's format; why tests failed or were skipped is noted."""
    cases = defaultdict(list)
    for case in ElementTree.parse(report).iter('testcase'):
        cases[case.attrib['name'].partition('[')[0]].append(case)
    for name, group in cases.items():
        kinds = [[child for child in case if child.tag != 'system-out'] for case in group]
        failed = [found[0] for found in kinds if found and found[0].tag != 'skipped']
        skipped = [found[0] for found in kinds if found and found[0].tag == 'skipped']
        run = len(group) - len(skipped)
        seconds = sum(float(case.attrib['time']) for case in group)
        notes = [f'{run} run, {seconds:.0f} s']
        for word, which in (('failed', failed), ('skipped', skipped)):
            said = dict.fromkeys(one.attrib.get('message', '').split('\n')[0] for one in which)
            notes += [f'{word}: {message[:160]}' for message in said]
        share = (run - len(failed)) / run if run else None
        what = name.removeprefix('test_').replace('_', ' ')
        yield Row(f'test: {what}', '', share, None, 1, '; '.join(notes).replace('|', '/'), '%')


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """While it lasts, products in float32 may or may not use TensorFloat-32."""
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = allowed
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


def captured(
    run: Callable[[], tuple[Tensor, ...]], device: str
) -> Callable[[], tuple[Tensor, ...]]:
    """Work on fixed tensors as a CUDA graph; on a CPU, which has none, the work itself."""
    if device == 'cpu':
        return run
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels are built and chosen before
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run()

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return outputs

    return replay


def inference(quick: bool, device: str) -> Iterator[Row]:
    """Latency of one image on the device, from pixels to detections, without reading the image."""
    size = (128, 160) if quick else SIZE
    model = our_model(config_of(CONFIG, quick))
    base = None
    for name, dtype, allowed, kind in (
        ('fp32, TF32 off', 'fp32', False, 'eager'),
        ('fp32, TF32 on', 'fp32', True, 'eager'),
        ('fp16', 'fp16', False, 'eager'),
        ('bf16', 'bf16', False, 'eager'),
        ('fp32, TF32 off, CUDA graph', 'fp32', False, 'graph'),
        ('fp16, CUDA graph', 'fp16', False, 'graph'),
        ('fp16, compiled', 'fp16', False, 'compiled'),
    ):
        if quick and kind == 'compiled':
            continue  # takes minutes on a CPU
        what = f'inference, {CONFIG}, {size[0]}x{size[1]}, {name}'
        try:
            spent = _latency(model, size, device, dtype, allowed, kind)
        except Exception as error:  # the other ways still have something to say
            yield Row(what, '', None, note=f'failed: {error!r}'[:200])
            continue
        base = base or spent
        yield Row(what, 'fp32, TF32 off', base / spent, note=f'{1000 * spent:.2f} ms')


def _latency(
    model: nn.Module, size: tuple[int, int], device: str, dtype: str, allowed: bool, kind: str
) -> float:
    ready = prepare(copy.deepcopy(model).to(device), dtype=dtype, compile=kind == 'compiled')
    with tf32(allowed), torch.no_grad():
        run: Callable[[], object] = _predicting(ready, size, device)
        if kind == 'graph':
            eager = graph_action(ready, size, device)
            expected, run = [scores.clone() for scores in eager()], captured(eager, device)
            torch.testing.assert_close(list(run()), expected, rtol=1e-3, atol=1e-3)
        return seconds_of(run, device, repeats=2 if device == 'cpu' else 20)


def graph_action(
    model: nn.Module, size: tuple[int, int], device: str
) -> Callable[[], tuple[Tensor, ...]]:
    """Detection as one function of fixed tensors, as it is exported."""
    graph = DetectorGraph(model).to(device).eval()
    images = make_batch(size, 1, device)['inputs'][0][None]
    sizes = torch.tensor([size], device=device)

    def run() -> tuple[Tensor, ...]:
        with torch.device(device):  # what it makes besides
            return graph(images, sizes)

    return run


def _predicting(model: nn.Module, size: tuple[int, int], device: str) -> Callable[[], object]:
    samples, images = samples_of(size), make_batch(size, 1, device)['inputs']

    def run() -> object:
        data = dict(inputs=images, data_samples=copy.deepcopy(samples))
        data = model.data_preprocessor(data, False)
        return model.predict(**{'batch_' + name: value for name, value in data.items()})

    return run


def curves(quick: bool, device: str) -> Iterator[Row]:
    """Losses of the toy detector on the same 4 batches of noise again and again, by backend."""
    steps, images, size = (5, 2, (96, 128)) if quick else (100, 16, (128, 128))
    batches = [make_batch(size, images, device, seed) for seed in range(4)]
    with forced('reference'), tf32(False):
        reference = _losses(TINY if quick else TOY, batches, steps, device)
    for name in backends_on(device):
        if name == 'reference':
            continue
        if reason := usable(name, device, torch.float32):
            yield Row(f'loss over {steps} steps, {name}', 'reference', None, note=reason)
            continue
        with forced(name), tf32(False):
            values = _losses(TINY if quick else TOY, batches, steps, device)
        pairs = list(zip(values, reference, strict=True))
        first, fifth = (abs(a - b) / b for a, b in (pairs[0], pairs[4]))
        ends = [statistics.mean(curve[-steps // 5 :]) for curve in (values, reference)]
        note = (
            f'mean of the last {steps // 5} steps {ends[0]:.3f} against {ends[1]:.3f}; first step '
            f'{reference[0]:.3f}, differs by {first:.0e}, the fifth by {fifth:.0e}'
        )
        what = f'loss over {steps} steps, {name}'
        yield Row(what, 'reference', min(ends) / max(ends), None, 0.95, note, '%')


def _losses(config: Path, batches: list[dict], steps: int, device: str) -> list[float]:
    model, optimizer = build(config, None, device)
    values = []
    for step in range(steps):
        torch.manual_seed(step)
        batch = copy.deepcopy(batches[step % len(batches)])
        values.append(model.train_step(batch, optimizer)['loss'].item())
    return values


def toy(quick: bool, device: str) -> Iterator[Row]:
    """Box AP of the demo's Deformable DETR after a whole training, against the CPU's."""
    config = TINY if quick else TOY
    with tempfile.TemporaryDirectory() as folder:
        data, work = f'{folder}/toy', f'{folder}/work'
        options = [f'{s}_dataloader.dataset.data_root={data}' for s in ('train', 'val', 'test')]
        truth = f'{data}/annotations/instances_val2017.json'
        options += [f'{split}_evaluator.ann_file={truth}' for split in ('val', 'test')]
        options += [f'randomness.seed={SEED}', 'train_cfg.val_interval=100']
        options += ['console_log_level=ERROR']
        start = time.monotonic()
        train(config, work_dir=work, device=device, cfg_options=options)
        synchronize(device)
        seconds = time.monotonic() - start
        epochs = load_config(config).train_cfg.max_epochs
        checkpoint = f'{work}/epoch_{epochs}.pth'
        metrics = evaluate(config, checkpoint, work_dir=work, cfg_options=options)
    low, high = CPU_AP
    note = f'trained in {seconds:.0f} s, data included, on {os.cpu_count()} processors'
    against = f'{low} to {high} over three seeds on a CPU'
    what = f'box AP, {config.stem}, seed {SEED}'
    yield Row(what, against, metrics['coco/bbox_mAP'], None, low, note, 'AP')
