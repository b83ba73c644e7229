"""Exported detectors against PyTorch: seconds an image.

    python -m benchmarks.export CONFIG [CHECKPOINT] --images 20 --sizes 320x480 640x640

exports to ONNX and OpenVINO, or to `--formats`, with both forms of attention, which compares each
file with PyTorch. Then it times PyTorch (prepared, as `mpvit test` does) and all of the files in
turn. `rows` is for the table of all benchmarks.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from benchmarks._machine import has_vnni
from benchmarks._timing import Action, Contender, Row, in_turn, markdown
from benchmarks.models import CONFIGS, our_model
from mpvit.config.own_data import config_on
from mpvit.config.reading import load_config
from mpvit.datasets.layout import find_test_data
from mpvit.datasets.toy import ToySpec, write_toy_dataset
from mpvit.errors import UserError
from mpvit.export.comparison import detected, picture
from mpvit.export.files import SUFFIXES, export
from mpvit.files.untrusted import TRUST_VARIABLE
from mpvit.inference import load_detector
from mpvit.models.runtimes import RUNTIMES
from mpvit.ops.msda.op import EXPORTED_FORMS

TORCH = 'PyTorch'
# AOTInductor, which compiles for minutes, is measured where it is asked for only.
FORMATS = ('onnx', 'openvino')
SIZES = ('240x320', '320x240', '256x256', '300x400')
# Name, config and size of the detectors in the table.
DETECTORS = (
    ('toy detector', 'mpvit_t_ddetr_toy', (128, 128)),
    ('MPViT-S detector', 'mpvit_s_ddetr_50e', (640, 640)),
)


def checkpoint_of(config: str, folder: Path) -> str:
    """A checkpoint with random weights that act like trained ones."""
    cfg = load_config(config)
    init_default_scope('mmdet')
    cfg.model.backbone.pop('init_cfg', None)
    path = folder / 'random.pth'
    torch.save(dict(state_dict=our_model(cfg).state_dict()), path)
    return str(path)


def on_toy_data(config: str, size: tuple[int, int], folder: Path) -> str:
    """A config on a few toy images, scaled to a size, which int8 is calibrated on."""
    data = write_toy_dataset(folder / 'toy', ToySpec(train_images=1, val_images=4))
    path = folder / 'config.py'
    cfg = config_on(find_test_data(str(data)), CONFIGS / f'{config}.py')[0]
    for step in cfg.test_dataloader.dataset.pipeline:
        if 'scale' in step:
            step.update(type='Resize', scale=size[::-1], keep_ratio=False)
    cfg.dump(path)
    return str(path)


def exported(
    config: str,
    checkpoint: str,
    folder: Path,
    forms: Sequence[str],
    formats: Sequence[str] = FORMATS,
    **fixed: Any,
) -> dict[str, str | Path]:
    """Files that pass their comparison by name, and that of PyTorch; says why others do not.

    ``fixed`` may hold ``size`` and ``batch`` for files that take no others.
    """
    files: dict[str, str | Path] = {TORCH: checkpoint}
    for format, form in product(formats, forms):
        suffix = SUFFIXES[format]
        name = f'{RUNTIMES[suffix]}, {form}'
        target = str(folder / f'{form}{suffix}')
        try:
            settings = dict(format=format, target=target, attention=form, **fixed)
            files[name], largest = export(config, checkpoint, **settings)
        except UserError as error:
            print(f'{name}: {error}')
            continue
        print(f'{name}: {largest}', flush=True)
    return files


def action_of(config: str, file: str | Path, size: tuple[int, int]) -> Action:
    """Detection in one image of a size, by a checkpoint in PyTorch or by an exported file."""
    MMLogger.get_current_instance().setLevel('WARNING')
    model = load_detector(config, str(file))
    image = picture(size, torch.Generator().manual_seed(1))

    def run() -> list[torch.Tensor]:
        found = detected(model, [image], None)[0]
        return [found.bboxes, found.scores, found.labels]

    return run


def compared(
    name: str,
    config: str,
    files: dict[str, str | Path],
    size: tuple[int, int],
    runs: int,
    int8: Path | str | None = None,
) -> Iterator[Row]:
    """PyTorch against each of the files at one size.

    Args:
        name: Of the detector.
        config: Config file.
        files: From `exported`.
        size: Height and width of the image in pixels.
        runs: Rounds.
        int8: File in int8, to be compared with OpenVINO in fp32, or why there is none.
    """
    contenders = {n: Contender(action_of, (config, file, size)) for n, file in files.items()}
    if isinstance(int8, Path):
        contenders['int8'] = Contender(action_of, (config, int8, size))
    turns = in_turn(contenders, runs, 30)
    what = f'{name}, {size[0]}x{size[1]}'
    for other in list(files)[1:]:
        yield turns.row(f'{what}, fp32, in {TORCH}', f'the same in {other}', (TORCH, other))
    what, against = f'{what}, int8, in OpenVINO', 'the same in fp32'
    target = 1.8 if has_vnni() else None
    if isinstance(int8, Path):
        yield turns.row(what, against, ('int8', 'openvino, grid_sample'), target)
    elif int8:
        yield Row(what, against, None, None, target, int8)


def int8_file(config: str, checkpoint: str, folder: Path, **fixed: Any) -> Path | str:
    """The detector in int8 for OpenVINO, or why there is none."""
    if find_spec('nncf') is None:
        return 'nncf is not installed'
    settings = dict(format='openvino', target=str(folder / 'int8.xml'), dtype='int8', **fixed)
    try:
        return export(config, checkpoint, **settings)[0]
    except UserError as error:
        return str(error)


def rows(quick: bool) -> Iterator[Row]:
    """Our own exports, each for one image of the size, against PyTorch, and int8 against fp32."""
    for name, config, size in DETECTORS[:1] if quick else DETECTORS:
        fixed = dict(size=size, batch=1)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            config = on_toy_data(config, size, folder)
            checkpoint = checkpoint_of(config, folder)
            files = exported(config, checkpoint, folder, ['grid_sample'], **fixed)
            int8 = int8_file(config, checkpoint, folder, **fixed)
            runs = 2 if quick else 15
            yield from compared(name, config, files, size, runs, int8)


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?', help='default: random weights')
    parser.add_argument('--images', type=int, default=20, help='of each size; default: 20')
    parser.add_argument('--sizes', nargs='+', default=SIZES, metavar='HxW')
    parser.add_argument('--formats', nargs='+', choices=SUFFIXES, default=FORMATS)
    parser.add_argument('--forms', nargs='+', choices=EXPORTED_FORMS, default=[*EXPORTED_FORMS])
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel('WARNING')
    os.environ[TRUST_VARIABLE] = '1'  # packages hold code: that which is written here
    table = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or checkpoint_of(args.config, Path(folder))
        files = exported(args.config, checkpoint, Path(folder), args.forms, args.formats)
        for size in args.sizes:
            height, width = (int(n) for n in size.split('x'))
            name = Path(args.config).stem
            table += compared(name, args.config, files, (height, width), args.images)
    print(f'\n{torch.get_num_threads()} threads, torch {torch.__version__}\n\n{markdown(table)}')


if __name__ == '__main__':
    main()
