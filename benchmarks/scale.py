"""What a training costs on 1, 8 and 64 GPUs, and what breaks first: prints docs/scale.md's tables.

Run `python -m benchmarks.scale`. Standard library only; no GPU is touched. Measured inputs come
from `benchmarks/scale_inputs.py`, `input.py` and `evaluation.py`; assumed ones are marked so
here and in the output. Replace the largest assumption with `--step-seconds`, which
`benchmarks/gpu_table.py` measures on your GPU.
"""

import argparse
import random
import statistics
from dataclasses import dataclass
from functools import cache

Line = tuple[float, float]  # constant and slope over the pixels of a padded image

# Measured for MPViT-S by benchmarks/scale_inputs.py.
FORWARD_FLOPS: Line = (4.597e9, 403_836)
FORWARD_FLOPS_R50: Line = (4.597e9, 381_484)
PARAMETERS = 34_445_534
SYNC_NORMS = 29
LIVE_BYTES: dict[str, Line] = {
    'fp32': (120.1e6, 7646),
    'fp32, backbone.with_cp': (119.2e6, 4064),
    'fp32, encoder.num_cp=6': (120.1e6, 4925),
    'fp32, both': (119.2e6, 1343),
    'bf16': (147.6e6, 4035),
    'bf16, both': (147.2e6, 763),
}


@dataclass(frozen=True)
class Annotations:
    """Costs of annotations per image: bytes kept, most bytes while loading, CPU seconds of it."""

    kept: float
    peak: float
    seconds: float


SEVEN_BOXES = Annotations(549, 9.8e3, 0.30e-3)
FIFTEEN_BOXES = Annotations(983, 18.5e3, 0.52e-3)

# Measured by benchmarks/input.py and evaluation.py, on one core.
PIPELINE_SECONDS = 0.020  # an image
EVALUATION_SECONDS = 11.3 / 5000  # an image of 91 detections

# Published.
R50_GPU_HOURS = 325  # 50 epochs of COCO on 16 V100 with 2 images each: README of Deformable DETR
BANDWIDTH = {'V100': 0.9e12, 'A100 80 GB': 2.04e12, 'H100': 3.35e12}  # bytes/s, data sheets

# Assumed; a step is limited by memory bandwidth, so the bandwidths also scale its speed.
PORTRAIT = 0.25  # share of 480 x 640 images among 640 x 480 ones
NODE = 8  # GPUs in a machine
BUS = (100e9, 20e9)  # bytes/s of an all-reduce within a machine, and across machines
LATENCY = (30e-6, 60e-6)  # seconds of a small collective, likewise

REFERENCE_PIXELS = 800 * 1333  # what benchmarks/gpu_table.py measures at
SHORT_SIDES = range(480, 801, 32)


@dataclass(frozen=True)
class Dataset:
    """A published data set: numbers of images, mean size of a file in bytes."""

    name: str
    train: int
    val: int
    file_bytes: float
    annotations: Annotations


COCO = Dataset('COCO', 118_287, 5_000, 18e9 / 118_287, SEVEN_BOXES)
OBJECTS365 = Dataset('Objects365', 1_742_289, 80_000, 367e9 / 1_822_289, FIFTEEN_BOXES)


@dataclass(frozen=True)
class Plan:
    """A training; times in seconds, memory in bytes.

    Attributes:
        steps: Of an epoch.
        compute: Of a step on the rank with the largest batch.
        gradients: All-reduce of a step, if nothing of it hid behind the backward pass.
        norms: Statistics of synchronised batch norms of a step, which nothing hides.
        validation: One pass, with the numbers computed on one core of the main process.
        cores: Of each machine, to prepare the images.
        reads: Bytes per second over all machines.
        kept: Annotations in each machine while training.
        peak: The same while all its ranks load the file.
    """

    steps: int
    compute: float
    gradients: float
    norms: float
    validation: float
    cores: float
    reads: float
    kept: float
    peak: float

    @property
    def step(self) -> float:
        """Seconds of a step, nothing overlapping."""
        return self.compute + self.gradients + self.norms

    def hours(self, epochs: int, val_interval: int = 1) -> float:
        """Of the whole training with a validation after every `val_interval` epochs."""
        passes = epochs // val_interval
        return (epochs * self.steps * self.step + passes * self.validation) / 3600


def shorten(height: float, width: float, short: int, limit: float = 1333) -> tuple[float, float]:
    """The size after a resize to a short side, with a limit to the long one."""
    factor = min(short / min(height, width), limit / max(height, width))
    return height * factor, width * factor


def training_size(rng: random.Random, portrait: float = PORTRAIT) -> tuple[float, float]:
    """Height and width of a training image after the recipe's augmentation."""
    size: tuple[float, float] = (640, 480) if rng.random() < portrait else (480, 640)
    if rng.random() < 0.5:
        size = shorten(*size, rng.choice((400, 500, 600)), limit=float('inf'))
        size = tuple(min(side, rng.randint(384, 600)) for side in size)  # type: ignore[assignment]
    return shorten(*size, rng.choice(SHORT_SIDES))


@cache
def padded_pixels(batch: int, grouped: bool = False, draws: int = 20000) -> tuple[float, ...]:
    """Pixels per image of random batches, padded to the largest height and width in them.

    Args:
        batch: Images.
        grouped: No batch holds upright and lying images.
        draws: Number of batches.
    """
    rng = random.Random(0)
    found = []
    for _ in range(draws):
        sizes = [training_size(rng, 0 if grouped else PORTRAIT) for _ in range(batch)]
        found.append(max(h for h, _ in sizes) * max(w for _, w in sizes))
    return tuple(found)


def slowest_pixels(gpus: int, batch: int, grouped: bool = False) -> float:
    """Mean over steps of the largest `padded_pixels` among the ranks, for which all wait."""
    pixels = padded_pixels(batch, grouped)
    groups = [pixels[i : i + gpus] for i in range(0, len(pixels) - gpus + 1, gpus)]
    return statistics.mean(max(group) for group in groups)


def at(line: Line, pixels: float) -> float:
    """A measured line at a number of pixels."""
    return line[0] + line[1] * pixels


def step_flops(forward: Line, pixels: float) -> float:
    """FLOPs of forward and backward per image: a backward pass is two forward ones."""
    return 3 * at(forward, pixels)


def sustained_flops(gpu: str) -> float:
    """FLOP/s of a GPU in training: published hours of R50 on V100, scaled by memory bandwidth."""
    per_image = step_flops(FORWARD_FLOPS_R50, slowest_pixels(16, 2))
    v100 = 50 * COCO.train * per_image / (R50_GPU_HOURS * 3600)
    return v100 * BANDWIDTH[gpu] / BANDWIDTH['V100']


def rate_of(step_seconds: float) -> float:
    """FLOP/s from a measured step of two images of 800 x 1333 px."""
    return 2 * step_flops(FORWARD_FLOPS, REFERENCE_PIXELS) / step_seconds


def allreduce_bytes(gpus: int) -> float:
    """Bytes that each GPU sends in a step: a ring over the float32 gradients."""
    return 2 * (gpus - 1) / gpus * 4 * PARAMETERS


def collective(gpus: int, within_and_across: tuple[float, float]) -> float:
    """The figure for a group of GPUs: within one machine or across several."""
    return within_and_across[gpus > NODE]


def make_plan(
    dataset: Dataset, gpus: int, rate: float, batch: int = 2, grouped: bool = False
) -> Plan:
    """The cost of a training.

    Args:
        dataset: What to train on.
        gpus: Their number.
        rate: FLOP/s of one of them.
        batch: Images of one of them.
        grouped: Batches by aspect ratio.
    """
    machines = -(-gpus // NODE)
    ranks = gpus // machines
    compute = batch * step_flops(FORWARD_FLOPS, slowest_pixels(gpus, batch, grouped)) / rate
    gradients = allreduce_bytes(gpus) / collective(gpus, BUS)
    norms = 2 * SYNC_NORMS * collective(gpus, LATENCY) if gpus > 1 else 0.0
    speed = gpus * batch / (compute + gradients + norms)
    forward = at(FORWARD_FLOPS, 800 * 1067) / rate
    return Plan(
        steps=dataset.train // (gpus * batch),
        compute=compute,
        gradients=gradients,
        norms=norms,
        validation=dataset.val * (forward / gpus + EVALUATION_SECONDS),
        cores=speed * PIPELINE_SECONDS / machines,
        reads=speed * dataset.file_bytes,
        kept=ranks * dataset.train * dataset.annotations.kept,
        peak=ranks * dataset.train * dataset.annotations.peak,
    )


def memory(variant: str, pixels: float, batch: int, gpus: int) -> float:
    """Bytes of a step on one GPU, at most.

    Weights, gradients and AdamW's two moments in float32, DDP's copy of the gradients, and the
    live tensors of forward and backward.

    Args:
        variant: A key of `LIVE_BYTES`.
        pixels: Of a padded image.
        batch: Images.
        gpus: With one there is no DDP.
    """
    copies = 4 if gpus == 1 else 5
    return 4 * copies * PARAMETERS + batch * at(LIVE_BYTES[variant], pixels)


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    for row in (head, ['---'] * len(head), *rows):
        print('| ' + ' | '.join(row) + ' |')
    print()


def print_costs(rates: dict[str, float], epochs: int, batch: int) -> None:
    """Hours and GPU hours by data set, number of GPUs, and GPU."""
    print(
        f'**Hours of {epochs} epochs** (in brackets: GPU hours), a validation after each, '
        'at the FLOP/s of the inputs\n'
    )
    rows = []
    for dataset in (COCO, OBJECTS365):
        for gpus in (1, 8, 64):
            plans = [make_plan(dataset, gpus, rate, batch) for rate in rates.values()]
            hours = [plan.hours(epochs) for plan in plans]
            cells = [f'{h:,.{1 if h < 100 else 0}f} ({gpus * h:,.0f})' for h in hours]
            rows.append([dataset.name, str(gpus), f'{plans[0].steps:,}', *cells])
    table(['data', 'GPUs', 'steps an epoch', *rates], rows)


def print_parts(rates: dict[str, float], batch: int) -> None:
    """Where the time goes, by number of GPUs, for the last GPU of the list."""
    gpu, rate = list(rates.items())[-1]
    print(f'**A step and a validation, {gpu}**\n')
    rows = []
    alone = make_plan(COCO, 1, rate, batch)
    for gpus, grouped in ((1, False), (8, False), (64, False), (64, True)):
        plan = make_plan(COCO, gpus, rate, batch, grouped)
        large = make_plan(OBJECTS365, gpus, rate, batch, grouped)
        rows.append(
            [
                f'{gpus}, grouped' if grouped else str(gpus),
                f'{1e3 * plan.compute:.0f} ms',
                f'{allreduce_bytes(gpus) / 1e6:.0f} MB, {1e3 * plan.gradients:.1f} ms',
                f'{2 * SYNC_NORMS if gpus > 1 else 0}, {1e3 * plan.norms:.1f} ms',
                f'{alone.step / plan.step:.0%}',
                f'{plan.steps * plan.step / 60:.1f} min',
                f'{plan.validation / 60:.1f} min',
                f'{large.steps * large.step / 3600:.1f} h',
                f'{large.validation / 60:.1f} min',
            ]
        )
    head = 'GPUs|slowest rank|gradients|batch norm|efficiency|COCO epoch|validation'
    table([*head.split('|'), 'Objects365 epoch', 'validation'], rows)


def print_hosts(rates: dict[str, float], batch: int) -> None:
    """What a machine must supply, for the last GPU of the list."""
    gpu, rate = list(rates.items())[-1]
    print(f'**Each machine, {gpu}**\n')
    rows = []
    for dataset in (COCO, OBJECTS365):
        for gpus in (1, 8, 64):
            plan = make_plan(dataset, gpus, rate, batch)
            rows.append(
                [
                    dataset.name,
                    str(gpus),
                    f'{plan.cores:.1f}',
                    f'{plan.reads / 1e6:.0f} MB/s, {plan.reads / dataset.file_bytes:.0f} files/s',
                    f'{plan.kept / 1e9:.1f} GB',
                    f'{plan.peak / 1e9:.1f} GB',
                    f'{dataset.train * dataset.annotations.seconds / 60:.1f} min',
                ]
            )
    head = 'data|GPUs|cores for images|reads, all machines|annotations kept|peak of loading'
    table([*head.split('|'), 'loading, CPU'], rows)


def print_memory() -> None:
    """Memory of a step by variant, batch and padded size."""
    print('**GB of a step on one GPU of several, at most**\n')
    cases: list[tuple[str, int, float]] = []
    for batch in (1, 2, 4):
        cases.append((f'{batch}, mean', batch, statistics.mean(padded_pixels(batch))))
        cases.append((f'{batch}, 800 x 1333', batch, REFERENCE_PIXELS))
        if batch > 1:  # one image is not padded to a square
            cases.append((f'{batch}, 1333 x 1333', batch, 1333 * 1333))
    rows = [
        [variant, *(f'{memory(variant, size, count, NODE) / 1e9:.1f}' for _, count, size in cases)]
        for variant in LIVE_BYTES
    ]
    table(['images and their padded size', *(name for name, _, _ in cases)], rows)


def print_inputs(rates: dict[str, float], measured: bool, batch: int) -> None:
    """What went in, with its origin."""
    mean = statistics.mean(padded_pixels(batch))
    single = statistics.mean(padded_pixels(1))
    origin = 'your `--step-seconds`' if measured else 'published V100 hours; by bandwidth: assumed'
    rows = [
        ['image sizes', f'640 x 480, {PORTRAIT:.0%} upright', 'assumed'],
        ['pixels of an image alone', f'{single / 1e3:.0f} k', 'the recipe, sampled'],
        [f'padded to a batch of {batch}', f'{mean / 1e3:.0f} k', 'the recipe, sampled'],
        ['FLOPs of a forward pass', f'{at(FORWARD_FLOPS, mean) / 1e9:.0f} G', 'measured'],
        ['forward + backward', '3 x forward', 'assumed'],
        ['trainable parameters', f'{PARAMETERS:,}', 'measured'],
        ['synchronised batch norms', str(SYNC_NORMS), 'measured'],
        *([f'FLOP/s, {gpu}', f'{rate / 1e12:.1f} T', origin] for gpu, rate in rates.items()),
        ['all-reduce, in a machine', f'{BUS[0] / 1e9:.0f} GB/s', 'assumed'],
        ['all-reduce, across', f'{BUS[1] / 1e9:.0f} GB/s', 'assumed'],
        ['small collective', f'{1e6 * LATENCY[0]:.0f} / {1e6 * LATENCY[1]:.0f} us', 'assumed'],
        ['pipeline', f'{1e3 * PIPELINE_SECONDS:.0f} ms an image and core', 'measured'],
        ['evaluation', f'{1e3 * EVALUATION_SECONDS:.1f} ms an image', 'measured'],
        *(
            [
                f'annotations, {boxes} boxes an image',
                f'{cost.kept:.0f} B kept, {cost.peak / 1e3:.0f} kB while loading, '
                f'{1e3 * cost.seconds:.2f} ms',
                'measured',
            ]
            for boxes, cost in ((7, SEVEN_BOXES), (15, FIFTEEN_BOXES))
        ),
    ]
    table(['input', 'value', 'origin'], rows)


def main() -> None:
    """Parse arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--step-seconds',
        type=float,
        help='of a training step of 2 images of 800 x 1333 px on your GPU: 2 / the images/s that '
        'benchmarks/gpu_table.py prints (default: assumed rates)',
    )
    parser.add_argument('--epochs', type=int, default=50)
    parser.add_argument('--batch', type=int, default=2, help='images of a GPU (default: 2)')
    arguments = parser.parse_args()
    rates = {gpu: sustained_flops(gpu) for gpu in BANDWIDTH}
    if arguments.step_seconds:
        rates = {'your GPU': rate_of(arguments.step_seconds)}
    print_inputs(rates, bool(arguments.step_seconds), arguments.batch)
    print_costs(rates, arguments.epochs, arguments.batch)
    print_parts(rates, arguments.batch)
    print_hosts(rates, arguments.batch)
    print_memory()


if __name__ == '__main__':
    main()
