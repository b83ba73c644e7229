"""Configs that cannot be, and overrides of every entry that a config has."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.hostile import SIZES, WORDS, spoil_bytes

# A config is Python that its user wrote: what it raises is said in a line, too.
_ADDED = [
    'model = None',
    'model = dict()',
    'model = dict(_delete_=True)',
    "model = dict(type='NoSuchDetector')",
    'model = dict(num_queries=-1)',
    'model = dict(backbone=3)',
    "model = dict(backbone=dict(_delete_=True, type='MPViT', arch='x'))",
    "model = dict(bbox_head=dict(num_classes='six'))",
    'model = [1]',
    'train_dataloader = None',
    'train_dataloader = dict(dataset=None)',
    'val_evaluator = 3',
    'optim_wrapper = dict(_delete_=True)',
    'param_scheduler = 7',
    'default_hooks = []',
    "custom_hooks = [dict(type='NoHook')]",
    "custom_imports = dict(imports=['no_such_module'])",
    'custom_imports = 3',
    "default_scope = 'nowhere'",
    'default_scope = None',
    'work_dir = 7',
    'load_from = 3',
    "load_from = 'no.pth'",
    'visualizer = None',
    'vis_backends = None',
    "test_pipeline = [dict(type='NoTransform')]",
    'x = 1 / 0',
    "raise ValueError('two\\nlines')",
    'raise RecursionError',
    'raise MemoryError',
    'def f(): return f()\nx = f()',
    'import no_such_module',
    'from . import something',
    "_base_ = 'no.py'",
    "_base_ = './tiny.py'",
    '_base_ = 3',
    "_base_ = ['/dev/null']",
    'x = {{_base_.nothing}}',
    "x = '{{fileDirname'",
    'model = dict(',
    'x = ' + '[' * 500 + ']' * 500,
    'x = ' + '(' * 50 + ')' * 50,
    'x = lambda: 3',
    'x = float("nan")',
    'x = "\\ud800"',
    'x = object()',
    'class A: pass',
    'x = b"bytes"',
    'x = {1: 2}',
    '\x00',
    '\tx = 1',
    'x = 1\x0c',
    '# coding: no-such-coding',
]
_WHOLE = [b'', b'\xff\xfe', b'\x00' * 50, b'3', b'print(1)', b'{"model": 3}', b'"""']


def spoil_config(rng: random.Random, path: Path) -> None:
    """Add a line to a config, or damage all of it."""
    way = rng.randrange(10)
    if way < 7:
        path.write_text(f'{path.read_text()}{rng.choice(_ADDED)}\n')
    elif way < 8:
        path.write_bytes(rng.choice(_WHOLE))
    else:
        spoil_bytes(rng, path)


def _leaves(tree: Any, path: str = '') -> Iterator[str]:
    if path:
        yield path
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in pairs:
        place = f'{path}.{key}' if path else str(key)
        if isinstance(value, dict | list) and value:
            yield from _leaves(value, place)
        else:
            yield place


def override(rng: random.Random, path: Path) -> str:
    """An entry of a config with a value that does not suit it."""
    from mpvit.config.reading import load_config

    try:
        entries = sorted(_leaves(load_config(str(path)).to_dict()))
    except Exception:  # it was damaged already
        entries = ['model.num_queries']
    entry = rng.choice(entries)
    if rng.random() < 0.1:
        entry += rng.choice(['.x', '.0', '.', '..', '.type', '[0]'])
    # where a large number is a long time and nothing else, it is not asked for
    long = any(
        word in entry for word in ('epoch', 'num_layers', 'num_feature', 'max_keep', 'T_max')
    )
    return f'{entry}={rng.choice(WORDS if long else [*WORDS, *SIZES])}'
