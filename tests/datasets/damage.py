"""Damages annotation files at random."""

import copy
import json
import math

DEEP = [[[[[[[[[[[[1]]]]]]]]]]]]
VALUES = (
    *(None, True, False, 0, 1, 2, -1, 7, 0.5, 1.0, 63.5, 1e-30, 1e39, 1e308, -1e308),
    *(10**400, -(10**400), 2**31, 2**63 - 1, 2**63, math.nan, math.inf, -math.inf),
    *('', '0', '1', '100', 'false', 'true', 'cat', '\ud800', '\0', 'a' * 300, '../00.png', '/x'),
    *([], {}, [1], [1, 2, 3], [1, 2, 3, 4], [0, 0, 64, 48], [5, 5, 1e-30, 5], DEEP, {'a': 1}),
    *([1, 2, math.nan, 4], [1, 2, 10**400, 4], [1e308] * 4, [-1e308, 0, 1.7e308, 5]),
    *(['1', '2', '3', '4'], [True, 2, 3, 4], [60, 40, -5, -5], [-10, -10, 20, 20], [64, 0, 5, 5]),
)
KEYS = dict(
    images=('id', 'file_name', 'width', 'height'),
    annotations=('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'ignore'),
    categories=('id', 'name'),
)
LISTS = tuple(KEYS)


def damage(content, rng):
    """Damage a file in place: a value or an entry, all of a kind, or a list."""
    kind = rng.choice(('annotations', *LISTS))
    entries = content.get(kind)
    how = rng.random()
    if how < 0.02:
        content[kind] = copy.deepcopy(rng.choice(VALUES))
    elif how < 0.03:
        content.pop(kind, None)
    elif isinstance(entries, list) and entries:
        whole = rng.random() < 0.06
        if whole or rng.random() < 0.7:
            damage_value(entries if whole else [rng.choice(entries)], rng, rng.choice(KEYS[kind]))
        else:
            damage_list(entries, rng)


def damage_value(entries, rng, key):
    value, drop = rng.choice(VALUES), rng.random() < 0.15
    for entry in filter(lambda one: isinstance(one, dict), entries):
        entry[key] = copy.deepcopy(value)
        if drop:
            del entry[key]


def damage_list(entries, rng):
    index = rng.randrange(len(entries))
    how = rng.choice(('drop', 'double', 'replace', 'shuffle'))
    if how == 'drop':
        del entries[index]
    elif how == 'double':
        entries.append(copy.deepcopy(entries[index]))
    elif how == 'replace':
        entries[index] = copy.deepcopy(rng.choice(VALUES))
    else:
        rng.shuffle(entries)


def written(content, rng):
    """The bytes of a file, sometimes damaged too."""
    data = json.dumps(content).encode()
    how = rng.random()
    if how < 0.02:
        return data[: rng.randrange(len(data))]
    if how < 0.04:
        place = rng.randrange(len(data))
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    return data
