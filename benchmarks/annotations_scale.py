"""Memory and time that a large annotation file costs the processes of one machine.

Run `python -m benchmarks.annotations_scale --images 2000000`. Writes a made-up file with the keys
and the density of Objects365, 15 boxes an image, and starts as many processes as there would be
GPUs. Each does what a training does with its annotations: the quick check of the data (the first
one), the dataset, the warnings about it (the first one), and a dataloader over all images in random
order, without opening any. Memory is the sum over all processes of their proportional set size
(PSS: pages that several share count once), as Linux gives it in /proc/PID/smaps_rollup.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 365
BOXES = 15  # an image; Objects365 has 14.6
BATCHES = 200
SIDES = 640, 480


def main() -> None:
    """Parse arguments, write the file, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=20_000, help='(default: 20000)')
    parser.add_argument('--ranks', type=int, default=2, help='processes (default: 2)')
    parser.add_argument('--workers', type=int, default=2, help='of each dataloader (default: 2)')
    parser.add_argument('--folder', help='where the file is or will be; by default removed after')
    parser.add_argument('--repeat', action='store_true', help='start a second time')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary)
        file = folder / f'{arguments.images}.json'
        if not file.exists():
            write_file(file, arguments.images)
        print(f'{arguments.images:,} images, {file.stat().st_size / 1e9:.2f} GB of JSON')
        print('| | PSS before, MB | peak PSS, MB | peak RSS of a process, MB | seconds |')
        print('|---|---|---|---|---|')
        for name in ('first start', 'second start')[: 1 + arguments.repeat]:
            found = measure(file, arguments.ranks, arguments.workers)
            before, peak, single, seconds = found
            print(f'| {name} | {before:,.0f} | {peak:,.0f} | {single:,.0f} | {seconds:,.0f} |')


def write_file(file: Path, images: int, seed: int = 0) -> None:
    """Write an annotation file entry by entry."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(np.log(6), np.log(300), (4096, 2)))
    corner = rng.random((4096, 2)) * (np.array(SIDES) - size)
    pool = [
        f'"iscrowd": 0, "isfake": 0, "area": {box[2] * box[3]}, "isreflected": 0, "bbox": {box}'
        for box in np.hstack([corner, size]).tolist()
    ]
    partial = file.with_name(f'{file.name}.part')
    with open(partial, 'w', encoding='utf-8') as target:
        target.write('{"images": [')
        for i in range(images):
            name = f'images/v1/patch{i // 40_000}/objects365_v1_{i:08d}.jpg'
            sides = f'"height": {SIDES[1]}, "width": {SIDES[0]}'
            entry = f'{{"id": {i}, "file_name": "{name}", {sides}, "license": 5, "url": ""}}'
            target.write(f'{", " if i else ""}{entry}')
        target.write('], "annotations": [')
        for i in range(images):
            shapes = rng.integers(0, len(pool), BOXES).tolist()
            categories = (1 + rng.random(BOXES) ** 3 * CLASSES).astype(int).tolist()
            entries = (
                f'{{"id": {BOXES * i + j}, {pool[shape]}, "image_id": {i}, "category_id": {kind}}}'
                for j, (shape, kind) in enumerate(zip(shapes, categories, strict=True))
            )
            target.write(f'{", " if i else ""}{", ".join(entries)}')
        categories = [dict(id=i, name=f'class {i}') for i in range(1, CLASSES + 1)]
        target.write(f'], "categories": {json.dumps(categories)}}}')
    partial.replace(file)


def measure(file: Path, ranks: int, workers: int) -> tuple[float, float, float, float]:
    """Start the processes and watch them.

    Returns:
        The sum of PSS when all are ready to read and at its peak, the highest RSS of one process,
        in MB, and the seconds from there until all dataloaders are through.
    """
    context = multiprocessing.get_context('spawn')
    barrier = context.Barrier(ranks + 1)
    processes = [
        context.Process(target=rank, args=(number, str(file), workers, barrier))
        for number in range(ranks)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    before, start = watch(processes)[0], time.perf_counter()
    peaks, done = [(before, 0.0)], threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            peaks.append(watch(processes))

    watcher = threading.Thread(target=look)
    watcher.start()
    barrier.wait()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    if any(process.exitcode for process in processes):
        raise SystemExit('a process failed')
    return before, max(pss for pss, _ in peaks), max(rss for _, rss in peaks), seconds


def watch(processes: list[Any]) -> tuple[float, float]:
    """Sum of PSS of processes and their children, and the highest RSS so far of one, in MB."""
    total, highest = 0.0, 0.0
    for pid in [pid for process in processes for pid in family(process.pid)]:
        try:
            total += entry(f'/proc/{pid}/smaps_rollup', 'Pss')
            highest = max(highest, entry(f'/proc/{pid}/status', 'VmHWM'))
        except (OSError, StopIteration):  # it has just ended
            continue
    return total, highest


def family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    try:
        children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    except OSError:
        return
    for child in children:
        yield from family(int(child))


def entry(path: str, key: str) -> float:
    """A number of a file of /proc, in MB."""
    with open(path) as file:
        line = next(line for line in file if line.startswith(f'{key}:'))
    return int(line.split()[1]) / 1000


def rank(number: int, file: str, workers: int, barrier: Barrier) -> None:
    """What a process of a training does with its annotations."""
    import torch
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope
    from torch.utils.data import DataLoader, Subset

    import mpvit.register  # noqa: F401
    from mpvit.datasets.annotations import forget, read_annotations
    from mpvit.datasets.check import Split, check_dataset

    torch.set_num_threads(1)
    init_default_scope('mmdet')
    barrier.wait()
    barrier.wait()
    if number == 0:
        check_dataset(Split(file, os.path.dirname(file)), quick=True)
    classes = tuple(f'class {i}' for i in range(1, CLASSES + 1))
    dataset = DATASETS.build(
        dict(
            type='OfficialCocoDataset',
            ann_file=file,
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=classes),
            filter_cfg=dict(filter_empty_gt=False, min_size=0),
            pipeline=[],
        )
    )
    if number == 0:
        small_objects(read_annotations(file))
    forget()
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(number))
    chosen = Subset(dataset, order[: 2 * BATCHES].tolist())
    settings = dict(multiprocessing_context='fork', num_workers=workers) if workers else {}
    loader = DataLoader(chosen, batch_size=2, collate_fn=list, **settings)
    boxes = sum(len(sample['instances']) for batch in loader for sample in batch)
    if boxes != 2 * BATCHES * BOXES:
        raise SystemExit(f'{boxes} boxes')


def small_objects(truth: Any) -> None:
    """The warning about small objects, which goes over all boxes."""
    from mpvit.datasets.check import Scales
    from mpvit.engine.outlook import _small_objects

    list(_small_objects(truth, Scales(480, 800, 1333)))


if __name__ == '__main__':
    main()
