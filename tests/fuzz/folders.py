"""Folders with links, pipes, sockets, odd names and things that are not what they are called."""

import json
import os
import random
import shutil
import socket
from pathlib import Path
from typing import Any

from fuzz.hostile import VALUES, places

# No shell must ever see these, and no reader may follow them out of the folder.
NAMES = [
    '$(touch canary).jpg',
    '`touch canary`.jpg',
    '-rf',
    '--out',
    'a\nb.jpg',
    ' .jpg',
    '%00.jpg',
]
NAMES += ['x' * 251 + '.jpg', '\udcff\udcfe.jpg', '名前.jpg', "'; touch canary;'.jpg", '.jpg']
NAMES += ['<img src=x onerror=alert(1)>.jpg', '{0}.jpg', '%s%n.jpg', '[a-z]*.jpg', 'CON', '~.jpg']


def replace_file(rng: random.Random, path: Path) -> None:
    """Put something that is no regular file in the place of a file or folder."""
    kept = path.with_name('kept-elsewhere')
    path.rename(kept)
    way = rng.randrange(9)
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        path.symlink_to('no-such-file')
    elif way == 2:
        path.symlink_to(path.name)
    elif way == 3:
        path.symlink_to(
            rng.choice(['/dev/zero', '/dev/null', '/dev/random', '/proc/self/mem', '/'])
        )
    elif way == 4:
        path.mkdir()
    elif way == 5:
        path.symlink_to(kept.name)  # a link to the real thing is fine
    elif way == 6:
        path.write_bytes(b'')
    elif way == 7:
        _socket(path)
    # else it is gone
    if way not in (5,) and rng.random() < 0.5:
        shutil.rmtree(kept) if kept.is_dir() else kept.unlink()


def _socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)
    os.chdir(before)


def _add(rng: random.Random, folder: Path) -> None:
    """Add something beside the files that belong there."""
    way = rng.randrange(6)
    if way == 0:
        os.mkfifo(folder / rng.choice(['pipe.jpg', 'pipe.json', 'pipe.pth', 'epoch_9.pth']))
    elif way == 1:
        (folder / 'loop').symlink_to('.')
    elif way == 2:
        (folder / rng.choice(['best_x.pth', 'epoch_9.pth', 'z.jpg'])).symlink_to('/dev/zero')
    elif way == 3:
        (folder / rng.choice(['new.py', 'z_test.py'])).write_text('open("canary", "w").close()')
    elif way == 4:
        deep = folder
        for _ in range(40):
            deep = deep / 'deeper'
        deep.mkdir(parents=True)
    else:
        _socket(folder / 's.jpg')


def _rename(rng: random.Random, path: Path) -> None:
    target = path.with_name(rng.choice(NAMES))
    if not target.exists():
        path.rename(target)


def spoil_folder(rng: random.Random, folder: Path) -> None:
    """Damage a folder of inputs, or the folder itself."""
    way = rng.randrange(10)
    inside = sorted(folder.rglob('*'))
    if way < 5 and inside:
        replace_file(rng, rng.choice(inside))
    elif way < 7:
        _add(rng, rng.choice([folder, *(path for path in inside if path.is_dir())]))
    elif way < 9 and inside:
        _rename(rng, rng.choice([path for path in inside if path.is_file()] or inside))
    else:
        replace_file(rng, folder)


#: Entries of a work folder's records that readers take; any other may be changed as well.
_TAKEN = {
    'run.json': 'settings software settings.model settings.model.type settings.model.backbone '
    'settings.train_cfg settings.train_dataloader settings.train_dataloader.dataset '
    'settings.train_dataloader.dataset.ann_file settings.train_dataloader.dataset.pipeline '
    'settings.train_dataloader.dataset.metainfo settings.train_dataloader.dataset.data_prefix '
    'settings.optim_wrapper settings.optim_wrapper.optimizer id config seed threads launched_by',
    'metrics.json': 'checkpoint data data.annotations data.images data.detections data.classes '
    'data.exif_turns metrics metrics.coco/bbox_mAP software inference inference.dtype settings',
}
_LINES = ['[' * 100_000, '{"step":' + '9' * 400 + ',"loss":1}', '{"step":1,"loss":1,"epoch":"x"}']
_STAMPS = [
    '2024/99/99 99:99:99 - x',
    '0000/01/01 00:00:00 - x',
    '\u0663' * 4 + '/01/01 00:00:00 - x',
]


def spoil_records(rng: random.Random, folder: Path) -> None:
    """Put a value of another kind into a record of a run, a line of its numbers, or its log."""
    way = rng.randrange(4)
    if way < 2:
        path = folder / list(_TAKEN)[way]
        tree = json.loads(path.read_text())
        _put(rng, tree, rng.choice(_TAKEN[path.name].split()).split('.'))
        path.write_text(json.dumps(tree))
    elif way == 2:
        path = rng.choice(sorted(folder.glob('*/vis_data/scalars.json')))
        lines = path.read_text().splitlines()
        record = json.loads(rng.choice(lines))
        _put(rng, record, list(rng.choice(sorted(places(record)))))
        lines.insert(rng.randrange(len(lines) + 1), rng.choice([json.dumps(record), *_LINES]))
        path.write_text('\n'.join(lines))
    else:
        path = rng.choice(sorted(folder.glob('*/*.log')))
        path.write_text(rng.choice(_STAMPS) + '\n' + path.read_text())


def _put(rng: random.Random, tree: Any, place: list[str]) -> None:
    for key in place[:-1]:
        tree = tree[key]
    tree[place[-1]] = rng.choice(VALUES)
