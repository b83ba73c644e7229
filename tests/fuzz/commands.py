"""Command lines of every command. Capitals are places of `fuzz.world.PLACES`."""

import random
import re
from typing import NamedTuple

from fuzz.hostile import SIZES, WORDS


class Line(NamedTuple):
    """A way to call a command.

    Attributes:
        words: Command and arguments.
        weight: How often it is chosen, as a share of the command's.
        then: A command line that must succeed if this one does.
        works: Whether it succeeds if nothing is damaged.
    """

    words: str
    weight: float = 1
    then: str = ''
    works: bool = True


TRAIN = 'train CONFIG --data DATA --work-dir OUT/new'
INT8 = 'export CONFIG CHECKPOINT --format openvino --dtype int8 --out OUT/x.xml'
#: How often each command is run; those that take seconds less.
WEIGHTS = dict(train=1.5, test=1.5, infer=5, check_dataset=9, browse_dataset=1, model_info=0.7)
WEIGHTS |= dict(convert_checkpoint=6, convert_dataset=4, data=1, demo=0.03, export=0.1, plot=1)
WEIGHTS |= dict(report=0.5, run=1, show_queries=1.5, weights=1, configs=0.5)
LINES: dict[str, list[Line]] = {
    'train': [
        Line(TRAIN),
        Line(f'{TRAIN} --load-from CHECKPOINT'),
        Line(f'{TRAIN} --resume CHECKPOINT --epochs 2', 0.5),
        Line('train CONFIG --data DATA --work-dir WORK --resume --epochs 2', 0.5),
        Line(f'{TRAIN} --preset finetune --epochs 1 --load-from CHECKPOINT', 0.3),
    ],
    'test': [
        Line('test CONFIG CHECKPOINT --data DATA --work-dir OUT/new --out OUT/raw.pkl'),
        Line('test WORK --data DATA --work-dir WORK'),
        Line('test CONFIG CHECKPOINT --data DATA --work-dir OUT/new --show-dir OUT/shown', 0.3),
    ],
    'infer': [
        Line('infer CONFIG CHECKPOINT PHOTOS --out OUT/found', 2),
        Line('infer WORK PHOTO --out OUT/found --threshold 0.01'),
        Line('infer CONFIG ONNX PHOTO --out OUT/found', 0.5),
        Line('infer CONFIG CHECKPOINT VIDEO PHOTO --out OUT/found --no-pictures'),
        Line('infer CONFIG CHECKPOINT PHOTO --out OUT/found --tile 64 --batch-size 2 --tta'),
    ],
    'check_dataset': [
        Line('check_dataset DATA --workers 1', 0.5, then=TRAIN),
        Line('check_dataset DATA --workers 1 --json OUT/a.json --fix OUT/b.json', 3),
        Line('check_dataset DATA --workers 1 --quick --picture OUT/a.png --config CONFIG', 0.5),
        Line('check_dataset --train-ann ANN --train-images PHOTOS --workers 2', 2),
    ],
    'browse_dataset': [
        Line('browse_dataset CONFIG --data DATA --out OUT/sheets --count 2 --draws 1'),
        Line('browse_dataset CONFIG --data DATA --out OUT/sheets --count 2 --split val'),
    ],
    'convert_checkpoint': [
        Line('convert_checkpoint OFFICIAL OUT/x.pth'),
        Line('convert_checkpoint OFFICIAL OUT/x.safetensors --config CONFIG'),
        Line('convert_checkpoint CHECKPOINT OUT/x.pth --to official', 2),
    ],
    'convert_dataset': [
        Line('convert_dataset YOLO OUT/coco'),
        Line('convert_dataset VOC OUT/coco'),
    ],
    'data': [Line('data toy DATA', works=False)],  # drawn to another specification
    'demo': [Line('demo --config CONFIG --work-dir OUT/new')],
    'export': [
        Line('export CONFIG CHECKPOINT --out OUT/x.onnx --size 128 128'),
        Line(f'{INT8} --data DATA --max-drop 90', works=False),  # the extra is not installed
    ],
    'model_info': [
        Line('model_info CONFIG --size 64 64 --runs 1 --json OUT/x.json'),
        Line('model_info CONFIG --size 32 64 --no-latency --no-memory --per-module', 2),
    ],
    'plot': [
        Line('plot curves WORK'),
        Line('plot curves WORK --out OUT/x.svg'),
        Line('plot errors WORK --out OUT/errors'),
        Line('plot errors --ann ANN --detections DETECTIONS --images PHOTOS --out OUT/errors'),
    ],
    'report': [Line('report WORK'), Line('report WORK --out OUT/x.html --count 1')],
    'run': [Line('run SCRIPT')],
    'show_queries': [Line('show_queries CONFIG CHECKPOINT PHOTO --out OUT/q.png --top 2')],
    'weights': [Line('weights'), Line('weights mpvit_tiny_in1k', works=False)],
    'configs': [Line('configs'), Line('configs mpvit_t_ddetr_toy')],
}
#: Commands that are not run, and why.
EXCLUDED = {
    'app': 'serves until it is ended; tests/tools/test_app_tool.py sends it hostile requests',
}
# What a path may be given instead. All of the network is shut in the sandbox.
_PATHS = ['', ' ', '.', '-', '--', '~no-such-user/x', '/dev/null', '/dev/zero', '/dev/stdin']
_PATHS += ['/proc/self/mem', 'x' * 300, 'a/' * 2100, 'no\nsuch', '\udcff', 'no.pth', '**', '[', '*']
_PATHS += ['http://127.0.0.1:9/x.pth', 'https://[::1', 'ftp://x/y.pth', 'file:///etc/passwd', '0']
_PATHS += ['s3://bucket/key', 'rtsp://', 'official', '../outside/kept.txt', '@args', '%00', '://']
_FLAGS = ['--no-such-flag', '--help=x', '--device=tpu', '--device=cuda:99', '--cfg-options=x', '-x']
_FLAGS += ['--cfg-options', '--batch-size=-1', '--seed=1e9', '--workers=100000', '--threshold=nan']


def names_in(words: list[str]) -> list[str]:
    """Places of a command line, each once."""
    return list(dict.fromkeys(re.findall(r'\b[A-Z]{3,}\b', ' '.join(words))))


def spoil_arguments(rng: random.Random, words: list[str]) -> list[str]:
    """Change one or two words of a command line."""
    words = list(words)
    for _ in range(rng.choice([1, 1, 2])):
        if not words[1:]:
            return [*words, rng.choice(_FLAGS)]
        place = rng.randrange(1, len(words))
        way = rng.randrange(6)
        if way == 0:
            del words[place]
        elif way == 1:
            words.insert(place, words[place])
        elif way == 2:
            words.insert(place, rng.choice(_FLAGS))
        elif way == 3 and re.fullmatch(r'[\d.]+', words[place]):
            words[place] = rng.choice([*WORDS, *SIZES])
        elif way == 4:
            words[place] += rng.choice(['x', '/', '/x', '\x1f', '.pth', '=1', '/../x'])
        else:
            words[place] = rng.choice(_PATHS)
    return words
