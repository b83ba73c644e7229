"""Values that do not belong where they are put, and bytes that are damaged."""

import gzip
import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

#: What a document may hold in a place where something else belongs.
VALUES: list[Any] = [
    None,
    True,
    False,
    'false',
    '',
    ' ',
    'x' * 5000,
    'a\x00b',
    '\ud800',
    '../../../outside/kept.txt',
    '/etc/passwd',
    '$(touch canary)',
    '<script>',
    '\x1b[31m',
    '名前',
    -1,
    0,
    1,
    2**31,
    2**63,
    10**400,
    1.5,
    -0.0,
    1e-300,
    1e308,
    float('nan'),
    float('inf'),
    [],
    {},
    [[]],
    [1, 2],
    {'a': None},
]
#: What an option may be given instead of what it takes. Large numbers are for `SIZES` alone.
WORDS = ['', ' ', '-1', '0', '1', '3', '0.5', '1e400', 'nan', 'inf', 'None', 'True', 'abc', '[]']
WORDS += ['[1,', '{}', '()', '(1,2)', '0x10', '1_0', '٣', 'a,b', '=', '\n', '\udcff', "'"]
SIZES = ['100000', '2000000000', '99999999999999999999']


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to everything in a document below its root."""
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(tree[key], (*path, key))


def _mutate(rng: random.Random, holder: Any, key: Any) -> None:
    """Change an entry of a list or a dict in one of many ways."""
    value = holder[key]
    way = rng.randrange(8)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, list):
        holder.append(value)
    elif way == 2 and isinstance(holder, dict):
        holder[rng.choice(['', 'x', 'id', 'type', '__class__', 7])] = holder.pop(key)
    elif way == 3 and isinstance(value, int | float | str):
        holder[key] = str(value) if not isinstance(value, str) else 0
    elif way == 4 and isinstance(value, int | float):
        holder[key] = value * rng.choice([-1, 0, 1000, 1e9, 0.001])
    elif way == 5:
        holder[key] = [value]
    else:
        holder[key] = rng.choice(VALUES)


def spoil_json(rng: random.Random, path: Path) -> None:
    """Change one entry, or the same entry of every element, or the whole structure."""
    tree = json.loads(path.read_text())
    ways = sorted(places(tree), key=repr)
    # sections of many elements are not all that counts
    depths = sorted({len(way) for way in ways})
    way = rng.choice([w for w in ways if len(w) == rng.choice(depths)] or ways)
    state, everywhere = rng.getstate(), rng.random() < 0.2
    for other in ways if everywhere else [way]:
        if len(other) != len(way) or other[-1] != way[-1] or other[:1] != way[:1]:
            continue
        holder = tree
        try:
            for key in other[:-1]:
                holder = holder[key]
            rng.setstate(state)
            _mutate(rng, holder, other[-1])
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has taken the place away
    path.write_text(json.dumps(tree))


def json_bytes(rng: random.Random, path: Path) -> None:
    """JSON that is none, or an unusual one."""
    text = path.read_text()
    path.write_bytes(
        rng.choice(
            [
                b'[' * 100_000,
                b'{"a":' * 50_000,
                b'\xef\xbb\xbf' + text.encode(),
                text.encode('utf-16'),
                text.replace(':', ': ' + ' ' * 50).encode(),
                gzip.compress(text.encode()),
                b'null',
                b'[]',
                b'{}',
                b'"text"',
                b'1' * 10_000,
                text.replace('"id": 1', '"id": 1, "id": 2', 1).encode(),
                b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n',
                text.encode()[:-1] + b',"images":[]}',
                text.encode() + b'\n' + text.encode(),
            ]
        )
    )


def spoil_bytes(rng: random.Random, path: Path) -> None:
    """Cut a file, empty it, or change or repeat some of its bytes."""
    content = bytearray(path.read_bytes())
    size = max(len(content), 1)
    way = rng.randrange(6)
    if way == 0:
        del content[rng.randrange(size) :]
    elif way == 1:
        content.clear()
    elif way == 2:
        for _ in range(rng.choice([1, 8, 200])):
            content[rng.randrange(size)] = rng.randrange(256)
    elif way == 3:
        start = rng.randrange(size)
        content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    elif way == 4:
        content[: rng.choice([1, 64, 1024])] = b''
    else:
        content += bytes(rng.randrange(256) for _ in range(512))
    path.write_bytes(content)


_YAML = [
    'a: &a [x, x, x, x, x, x, x, x, x]\n'
    + ''.join(
        f'{b}: &{b} [{",".join(f"*{a}" for _ in range(9))}]\n' for a, b in pairwise('abcdefghi')
    )
    + 'names: *i\n',
    'names: !!python/object/apply:os.system ["touch canary"]\n',
    'names: &x [*x]\n',
    'names: {0: cat, 5: dog, x: owl}\n',
    'names: 7\n',
    'names: []\n',
    'train: ../../outside\n',
    'train: /\nval: /\n',
    'train: [images/train, images/val]\n',
    'train: http://127.0.0.1:9/a.zip\n',
    'path: ../..\n',
    'nc: 10000000000\n',
    '- 1\n',
    '{' * 5000,
]


def spoil_yaml(rng: random.Random, path: Path) -> None:
    """Replace or override entries of a YAML file."""
    if rng.random() < 0.2:
        spoil_bytes(rng, path)
        return
    kept = path.read_text() if rng.random() < 0.5 else ''
    path.write_text(kept + rng.choice(_YAML))


_ENTITIES = '<!DOCTYPE a [<!ENTITY b0 "xxxxxxxxxx">{}]>'.format(
    ''.join(f'<!ENTITY b{n} "{f"&b{n - 1};" * 10}">' for n in range(1, 9))
)
_XML = ['<a', '<annotation/>', f'{_ENTITIES}<annotation>&b8;</annotation>']
_XML += ['<!DOCTYPE a [<!ENTITY f SYSTEM "../../outside/kept.txt">]><annotation>&f;</annotation>']
_XML += ['<annotation>' * 20_000, '<annotation><object/></annotation>']


def spoil_xml(rng: random.Random, path: Path) -> None:
    """Replace an XML file, or one of its numbers or names."""
    text = path.read_text()
    if rng.random() < 0.4:
        path.write_text(rng.choice(_XML))
    elif rng.random() < 0.3:
        spoil_bytes(rng, path)
    else:
        parts = text.split('>')
        place = rng.randrange(len(parts))
        content, lower, tag = parts[place].partition('<')
        words = ['', '-5', 'nan', 'inf', '1e999', 'x', '&amp;', '../../outside/kept', '99999999999']
        parts[place] = rng.choice(words if content else ['', content]) + lower + tag
        path.write_text('>'.join(parts))
