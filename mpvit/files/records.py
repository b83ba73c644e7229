"""JSON and configs of strangers: whether their entries are of the kinds that a reader takes.

A reader states once what it takes, in the form of the record itself, instead of at each use::

    dict(checkpoint=str, data=dict(annotations=str, classes=[str]))

Entries that are missing or null are fine, and so are those that the form does not name.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpvit.errors import UserError
from mpvit.files.untrusted import TEXT_BYTES, read_untrusted

Form = Any  # a type; a dict of forms by name; a list with the form of each of its elements
_NAMES = {str: 'a string', bool: 'true or false', int: 'a whole number', float: 'a number'}
_NAMES |= {list: 'a list', tuple: 'a list', dict: 'a dict', type(None): 'null'}
_MOST = 2**63  # numpy and matplotlib take no larger integers


def read_record(path: str | os.PathLike[str], form: Form) -> dict[str, Any]:
    """The content of a JSON file that is a dict; empty if there is no such file.

    Raises:
        UserError: It is no JSON, no dict, or one of its entries is not of the kind of the form.
        OSError: It cannot be read.
    """
    if not Path(path).is_file():
        return {}
    try:
        content = json.loads(read_untrusted(path, TEXT_BYTES))
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is no JSON: {error}; run it again') from error
    try:
        check_form(content, form)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} cannot be used: {error}; run it again') from error
    return dict(content)


def check_form(value: Any, form: Form, entry: str = '') -> None:
    """Make sure of the kinds of a value and of what it holds.

    Args:
        value: What was read.
        form: As the module says.
        entry: Where the value stands.

    Raises:
        ValueError: One is of another kind; it says which.
    """
    kind = form if isinstance(form, type) else type(form)
    if not is_kind(value, kind):
        is_one = _NAMES.get(type(value), type(value).__name__)
        if type(value) is int and kind in (int, float):
            is_one = 'too large'
        raise ValueError(f'{entry or "the content"} is {is_one}, not {_NAMES[kind]}')
    for name, part, part_form in _parts(value, form):
        check_form(part, part_form, entry + name if entry else name.lstrip('.'))


def is_kind(value: Any, kind: type) -> bool:
    """Whether a value is of a kind; a number also is of a size that numpy takes, and no bool."""
    if kind in (int, float):
        whole = type(value) is int and -_MOST <= value < _MOST
        return whole or (kind is float and type(value) is float)
    return isinstance(value, (list, tuple) if kind is list else kind)


def _parts(value: Any, form: Form) -> Iterator[tuple[str, Any, Form]]:
    """What a value holds: where, the part, and its form."""
    if isinstance(form, list):
        yield from ((f'[{place}]', part, form[0]) for place, part in enumerate(value))
    elif isinstance(form, dict):
        for name, part_form in form.items():
            if value.get(name) is not None:
                yield f'.{name}', value[name], part_form
