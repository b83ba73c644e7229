"""Small whole inputs of every kind, made once; each case gets its own copies and damages them."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import own_layouts
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """_base_ = {base!r}
spec = dict(train_images=4, val_images=3, min_size=64, max_size=96, max_objects=3, empty=0)
model = dict(num_queries=10)
train_dataloader = dict(batch_size=2, dataset=dict(spec=spec))
val_dataloader = dict(batch_size=2, dataset=dict(spec=spec))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
console_log_level = 'ERROR'
"""
# What stands in command lines, and where it lies in the folder of a case. What a command may write
# into is below `run`; everything else must be left as it was.
PLACES = dict(
    CONFIG='in/tiny.py',
    DATA='in/data',
    ANN='in/data/annotations/instances_val2017.json',
    PHOTOS='in/data/val2017',
    PHOTO='in/data/val2017/000000000001.jpg',
    CHECKPOINT='in/weights.pth',
    OFFICIAL='in/official.pth',
    VIDEO='in/clip.avi',
    YOLO='in/yolo',
    VOC='in/voc',
    DETECTIONS='in/found.bbox.json',
    SCRIPT='in/script.py',
    ONNX='in/weights.onnx',
    WORK='run/work',
    OUT='run',
)


def build(folder: Path, call: Callable[[list[str]], Any]) -> None:
    """Make the inputs; ``call`` runs a command line of the project."""
    from mpvit.datasets.toy import ToySpec, write_toy_dataset

    (folder / 'in').mkdir(parents=True)
    (folder / 'run').mkdir()
    os.chdir(folder)
    place = {name: str(folder / path) for name, path in PLACES.items()}
    Path(place['CONFIG']).write_text(CONFIG.format(base=str(ROOT / 'tests/data/tiny.py')))
    spec = ToySpec(train_images=4, val_images=3, min_size=64, max_size=96, max_objects=3, empty=0)
    write_toy_dataset(place['DATA'], spec)
    work, data = place['WORK'], ['--data', place['DATA']]
    call(['train', place['CONFIG'], *data, '--work-dir', work])
    call(['test', place['CONFIG'], f'{work}/epoch_1.pth', *data, '--work-dir', work])
    shutil.copy(f'{work}/epoch_1.pth', place['CHECKPOINT'])
    shutil.copy(f'{work}/detections.bbox.json', place['DETECTIONS'])
    call(['convert_checkpoint', place['CHECKPOINT'], place['OFFICIAL'], '--to', 'official'])
    call(['export', place['CONFIG'], place['CHECKPOINT'], '--out', place['ONNX']])
    _write_video(place['VIDEO'])
    own_layouts.yolo(Path(place['DATA']), Path(place['YOLO']))
    own_layouts.voc(Path(place['DATA']), Path(place['VOC']))
    Path(place['SCRIPT']).write_text('print("ran")\n')


def _write_video(path: str) -> None:
    import cv2

    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 25, (64, 48))
    for brightness in (40, 120, 200):
        writer.write(np.full((48, 64, 3), brightness, np.uint8))
    writer.release()


def unreadable(path: Path) -> str | None:
    """Why an output is not whole, or None if it is. Runs in a process of its own.

    Files of unknown kinds must not be empty.
    """
    try:
        if not _READERS.get(path.suffix, _nonempty)(path):
            return 'it is not whole'
    except Exception as error:  # whatever the reader says
        return f'{type(error).__name__}: {error}'
    return None


def _json(path: Path) -> bool:
    text = path.read_text(encoding='utf-8')
    for part in text.splitlines() if path.parent.name == 'vis_data' else [text]:
        json.loads(part)  # of a log a line for every step
    return True


def _picture(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
    return True


def _checkpoint(path: Path) -> bool:
    from mpvit.checkpoints.reading import read

    return bool(read(path))


def _pickle(path: Path) -> bool:
    import pickletools

    with path.open('rb') as file:
        last = [opcode.name for opcode, _, _ in pickletools.genops(file)][-1]
        return last == 'STOP' and not file.read(1)


def _table(path: Path) -> bool:
    text = path.read_bytes().decode()
    rows = list(csv.reader(io.StringIO(text)))
    return text.endswith('\n') and len({len(row) for row in rows}) == 1


def _video(path: Path) -> bool:
    import cv2

    return bool(cv2.VideoCapture(str(path)).read()[0])


def _nonempty(path: Path) -> bool:
    # that one is empty until a training has its first checkpoint
    return path.name == 'last_checkpoint' or path.stat().st_size > 0


_READERS: dict[str, Callable[[Path], bool]] = {
    '.json': _json,
    '.csv': _table,
    **dict.fromkeys(('.png', '.jpg', '.jpeg', '.webp'), _picture),
    **dict.fromkeys(('.pth', '.safetensors'), _checkpoint),
    '.pkl': _pickle,
    '.html': lambda path: path.read_text(encoding='utf-8').rstrip().endswith('</html>'),
    '.svg': lambda path: path.read_text(encoding='utf-8').rstrip().endswith('</svg>'),
    '.xml': lambda path: path.read_text(encoding='utf-8').rstrip().endswith('</net>'),
    '.pdf': lambda path: path.read_bytes().rstrip().endswith(b'%%EOF'),
    **dict.fromkeys(('.mp4', '.avi'), _video),
    '.log': lambda path: True,
    '.py': lambda path: compile(path.read_text(encoding='utf-8'), str(path), 'exec') is not None,
    '.txt': lambda path: True,
}
