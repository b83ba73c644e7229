"""What decoding and resizing cost per image, and how many workers feed a GPU.

Run `python -m benchmarks.input`. Takes the training pipeline of the COCO configs over made-up
JPEGs of 640 x 480 pixels, the most common size in COCO.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import mpvit.register  # noqa: F401
from mpvit.config.reading import Config, load_config

CONFIG = 'configs/deformable_detr/mpvit_s_ddetr_50e.py'


def main() -> None:
    """Parse arguments, measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=200, help='images a row (default: 200)')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2])
    arguments = parser.parse_args()
    config = load_config(CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(Path(folder))
        print('| part of the training pipeline | CPU ms an image, median | mean |\n|---|---|---|')
        whole = print_parts(config, paths, arguments.images)
        print(f'\nOne core: {1000 / whole:.0f} images/s; a GPU at N images/s takes N/that cores.')
        print('\n| workers | images/s |\n|---|---|')
        for workers in arguments.workers:
            print(f'| {workers} | {throughput(config, paths, arguments.images, workers):.0f} |')


def write_jpegs(folder: Path, count: int = 16) -> list[Path]:
    """Write JPEGs of about 110 kB, with soft shapes and some noise."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        rough = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))
        soft = np.asarray(rough.resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        pixels = (soft + rng.integers(-10, 10, soft.shape)).clip(0, 255).astype(np.uint8)
        paths.append(folder / f'{number}.jpg')
        Image.fromarray(pixels).save(paths[-1], quality=92)
    return paths


def sample(path: Path) -> dict[str, Any]:
    """What the dataset hands to the pipeline, with seven boxes."""
    box = dict(bbox=[100, 100, 300, 260], bbox_label=1, ignore_flag=0)
    info = dict(img_path=str(path), img_id=1, height=480, width=640, instances=[box] * 7)
    return dict(info, sample_idx=0, seg_map_path=None)


def print_parts(config: Config, paths: list[Path], images: int) -> float:
    """Time each step of the pipeline and print a row for it.

    Args:
        config: Config with ``train_pipeline``.
        paths: JPEGs.
        images: How many to take through.

    Returns:
        Mean of the sum in CPU milliseconds.
    """
    from mmcv.transforms import Compose

    steps = Compose(config.train_pipeline).transforms
    np.random.seed(0)
    taken = defaultdict(list)
    for number in range(images):
        results = sample(paths[number % len(paths)])
        for step in steps:
            start = time.process_time()
            results = step(results)
            taken[type(step).__name__].append(1000 * (time.process_time() - start))
    for name, values in taken.items():
        print(f'| {name} | {statistics.median(values):.1f} | {statistics.mean(values):.1f} |')
    whole = [sum(values) for values in zip(*taken.values(), strict=True)]
    print(f'| all | {statistics.median(whole):.1f} | {statistics.mean(whole):.1f} |')
    return statistics.mean(whole)


def throughput(config: Config, paths: list[Path], images: int, workers: int) -> float:
    """Images per second of wall clock that a dataloader delivers, after the first batch."""
    from mmcv.transforms import Compose
    from mmengine.dataset import pseudo_collate
    from torch.utils.data import DataLoader

    pipeline = Compose(config.train_pipeline)
    dataset = [sample(paths[number % len(paths)]) for number in range(images)]

    class Piped(list):
        def __getitem__(self, index: int) -> Any:
            return pipeline(super().__getitem__(index))

    loader = DataLoader(
        Piped(dataset), batch_size=2, num_workers=workers, collate_fn=pseudo_collate
    )
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    count = sum(len(batch['inputs']) for batch in batches)
    return count / (time.perf_counter() - start)


if __name__ == '__main__':
    main()
