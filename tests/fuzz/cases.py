"""Case N of seed S: a command line, and what is done to it and to what it reads."""

import errno
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fuzz import checkpoints, configs, folders, hostile, images
from fuzz.commands import LINES, WEIGHTS, names_in, spoil_arguments
from fuzz.world import PLACES

Spoil = Callable[[random.Random, Path], None]


@dataclass
class Fault:
    """What goes wrong while a command runs.

    Attributes:
        kind: 'write' or 'read' for an error of the system there, 'signal', 'full' for files that
            cannot grow beyond a size, 'pipe' for an output that nobody reads.
        number: The error, the signal or the size in bytes.
        at: At which file that is opened, counted from 0.
    """

    kind: str
    number: int = 0
    at: int = 0


@dataclass
class Case:
    """A command to run in a folder of its own.

    Attributes:
        name: Seed and number.
        lines: Command lines; a later one must succeed if those before it did.
        told: What was done, for whoever reads the failure.
        refused: Whether success is wrong.
        whole: Whether nothing was done, so that failure is wrong.
        works: Whether it succeeds if nothing is done.
        fault: What goes wrong while the first runs.
    """

    name: str
    lines: list[list[str]]
    told: list[str] = field(default_factory=list)
    refused: bool = False
    whole: bool = False
    works: bool = True
    fault: Fault | None = None


def _in(pattern: str, spoil: Spoil) -> Spoil:
    """Damage one of the files in a folder."""

    def one(rng: random.Random, folder: Path) -> None:
        spoil(rng, rng.choice(sorted(path for path in folder.rglob(pattern) if path.is_file())))

    return one


_file = [(hostile.spoil_bytes, 1), (folders.replace_file, 1)]
_picture = [(images.spoil_picture, 3), (folders.replace_file, 1)]
_checkpoint = [
    (checkpoints.spoil_checkpoint, 5),
    (checkpoints.no_checkpoint, 2),
    (hostile.spoil_bytes, 2),
    (folders.replace_file, 1),
]
_json = [(hostile.spoil_json, 6), (hostile.json_bytes, 1), (hostile.spoil_bytes, 1)]
#: What can be done to each place, and how often.
DAMAGES: dict[str, list[tuple[Spoil, float]]] = {
    'CONFIG': [(configs.spoil_config, 1)],
    'DATA': [
        (_in('*.json', hostile.spoil_json), 6),
        (_in('*.json', hostile.json_bytes), 1),
        (_in('*.json', hostile.spoil_bytes), 1),
        (_in('*.jpg', images.spoil_picture), 4),
        (folders.spoil_folder, 3),
    ],
    'ANN': _json,
    'DETECTIONS': _json,
    'PHOTOS': [(_in('*.jpg', images.spoil_picture), 2), (folders.spoil_folder, 1)],
    'PHOTO': _picture,
    'CHECKPOINT': _checkpoint,
    'OFFICIAL': _checkpoint,
    'ONNX': [(checkpoints.spoil_onnx, 2), (hostile.spoil_bytes, 1), (folders.replace_file, 1)],
    'VIDEO': [(images.spoil_picture, 1), (hostile.spoil_bytes, 2), (folders.replace_file, 1)],
    'YOLO': [
        (_in('*.txt', hostile.spoil_bytes), 1),
        (_in('*.yaml', hostile.spoil_yaml), 2),
        (_in('*.jpg', images.spoil_picture), 1),
        (folders.spoil_folder, 1),
    ],
    'VOC': [
        (_in('*.xml', hostile.spoil_xml), 2),
        (_in('*.jpg', images.spoil_picture), 1),
        (folders.spoil_folder, 1),
    ],
    'SCRIPT': [(folders.replace_file, 1)],
    'WORK': [
        (_in('*.pth', checkpoints.spoil_checkpoint), 2),
        (_in('*.pth', hostile.spoil_bytes), 1),
        (_in('[!s]*.json', hostile.spoil_json), 3),
        (folders.spoil_records, 4),
        (_in('*.json', hostile.spoil_bytes), 2),
        (_in('*.py', configs.spoil_config), 1),
        (_in('last_checkpoint', hostile.spoil_bytes), 1),
        (folders.spoil_folder, 3),
    ],
}


def case(seed: int, number: int) -> tuple[Case, random.Random]:
    """A case, and the random numbers with which `prepare` goes on; the same each time."""
    rng = random.Random(f'{seed}:{number}')
    command = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    line = rng.choices(LINES[command], [line.weight for line in LINES[command]])[0]
    lines = [text.split() for text in (line.words, line.then) if text]
    return Case(f'{seed}:{number}', lines, works=line.works), rng


def prepare(case: Case, rng: random.Random, world: Path, folder: Path) -> None:
    """Copy what the command reads into a folder, and damage it or the command line."""
    shutil.copytree(world / 'in', folder / 'in', symlinks=True)
    shutil.copytree(world / 'run', folder / 'run', symlinks=True)
    for name in ('outside', 'tmp', 'home'):
        (folder / name).mkdir()
    (folder / 'outside' / 'kept.txt').write_text('kept, and secret')
    names = [name for name in names_in(case.lines[0]) if name in DAMAGES]
    for _ in range(rng.choice([1, 1, 1, 2])):
        _spoil(case, rng, folder, names)
    place = {name: str(folder / path) for name, path in PLACES.items()}
    for words in case.lines:
        for index, word in enumerate(words):
            name, slash, rest = word.partition('/')
            words[index] = f'{place[name]}{slash}{rest}' if name in place else word


def _spoil(case: Case, rng: random.Random, folder: Path, names: list[str]) -> None:
    way = rng.random()
    if way < 0.04 and case.works and not case.told:
        case.whole = True
    elif case.whole:
        pass
    elif way < 0.14:
        case.lines = [spoil_arguments(rng, case.lines[0])]
        case.told.append('arguments')
    elif way < 0.24:
        case.fault = _fault(rng)
        case.lines = case.lines[:1]
        case.told.append(str(case.fault))
    elif way < 0.34 and case.lines[0][0] in ('train', 'test', 'browse_dataset'):
        entry = configs.override(rng, folder / PLACES['CONFIG'])
        case.lines[0] += ['--cfg-options', entry]
        case.told.append('an override')
    elif names:
        name = rng.choice(names)
        _damage(case, rng, name, folder / PLACES[name])
    else:
        case.lines = [spoil_arguments(rng, case.lines[0])]
        case.told.append('arguments')


def _damage(case: Case, rng: random.Random, name: str, path: Path) -> None:
    ways, weights = zip(*DAMAGES[name], strict=True)
    spoil = rng.choices(ways, weights)[0]
    unusable = name == 'CHECKPOINT' and case.lines[0][0] in ('infer', 'test', 'show_queries')
    if unusable and rng.random() < 0.3:
        spoil = partial(checkpoints.spoil_checkpoint, names=checkpoints.UNUSABLE)
        case.refused = True
    before = set(path.parent.rglob('*'))
    try:
        if path.is_fifo():
            raise FileExistsError('it is a named pipe already, which would wait')
        spoil(rng, path)
    except Exception as error:  # it was damaged already so that nothing more can be done to it
        case.told.append(f'{name}: {error!r}')
        return
    changed = sorted(str(p.relative_to(path.parent)) for p in set(path.parent.rglob('*')) ^ before)
    what = getattr(spoil, '__name__', 'unusable weights')
    case.told.append(f'{name}: {what} {changed or ""}')


def _fault(rng: random.Random) -> Fault:
    way = rng.randrange(6)
    if way < 2:
        numbers = [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO, errno.EDQUOT]
        return Fault('write', rng.choice(numbers), rng.randrange(12))
    if way == 2:
        return Fault('read', rng.choice([errno.EACCES, errno.EIO, errno.ESTALE]), rng.randrange(20))
    if way == 3:
        numbers = [signal.SIGINT, signal.SIGTERM]
        return Fault('signal', rng.choice(numbers), rng.randrange(40))
    if way == 4:
        return Fault('full', rng.choice([0, 1, 100, 4096, 20_000, 100_000, 1_000_000]))
    return Fault('pipe')
