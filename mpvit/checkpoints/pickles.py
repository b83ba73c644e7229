"""Pickles of strangers, looked through before they are loaded."""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_MOST_VALUES = 10**6  # of a tuple with all tuples in it
_ARCHIVE = b'PK\x03\x04'
_LARGE, _MOST_LARGE = 2**60, 10_000  # multiples of 2**61 - 1 have one hash, as keys of a dict
_MARK = -1
_FIRST_PICKLES = 5  # of the old format: three of it, the object and the names of its tensors
_PUT = ('PUT', 'BINPUT', 'LONG_BINPUT')
_GET = ('GET', 'BINGET', 'LONG_BINGET')
_TUPLES = dict(EMPTY_TUPLE=0, TUPLE1=1, TUPLE2=2, TUPLE3=3)


class Multiplied(Exception):
    """There is more to hash than anybody would write."""


def check_tuples(path: Path) -> None:
    """Make sure that the keys of a checkpoint's dicts can be hashed in no time.

    Python hashes a tuple value by value, and cannot be interrupted while it does: a tuple of two,
    each the same tuple of two, and so on 40 times, takes hours. Of integers many may have one hash,
    and each is then compared with all others.

    Raises:
        Multiplied: They cannot.
        Exception: The file is damaged; pickletools and zipfile have errors of their own.
    """
    for pickled in _pickles(path):
        _check(pickled)


def _pickles(path: Path) -> Iterator[Any]:
    file: BinaryIO
    with path.open('rb') as file:
        is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE  # as torch tells, which knows no other
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist() if _is_pickle(name))
        return
    with path.open('rb') as file:
        yield from (file for _ in range(_FIRST_PICKLES))  # each goes on where the one before ends


def _is_pickle(name: str) -> bool:
    return name.endswith('.pkl')


def _check(pickled: Any) -> None:
    """Follow the sizes of tuples over the stack of the unpickler; all else has the size 1."""
    stack: list[int] = []
    memo: dict[int, int] = {}
    argument: Any
    large = 0
    for opcode, argument, _ in pickletools.genops(pickled):
        name = opcode.name
        if isinstance(argument, int) and abs(argument) >= _LARGE:
            large += 1
            if large > _MOST_LARGE:
                raise Multiplied(f'more than {_MOST_LARGE:,} integers of 61 bits or more')
        if name in _PUT:
            memo[argument] = stack[-1]
        elif name == 'MEMOIZE':
            memo[len(memo)] = stack[-1]
        elif name in _GET:
            stack.append(memo[argument])
        elif name == 'DUP':
            stack.append(stack[-1])
        else:
            count = _TUPLES.get(name)
            popped = _popped(stack, opcode) if count is None else _last(stack, count)
            is_tuple = count is not None or name == 'TUPLE'
            size = 1 + sum(popped) if is_tuple else 1
            if size > _MOST_VALUES:
                raise Multiplied(f'a tuple of more than {_MOST_VALUES:,} values')
            stack += [_MARK if name == 'MARK' else size] * len(opcode.stack_after)


def _popped(stack: list[int], opcode: Any) -> list[int]:
    """Take from the stack what an operation takes, and give what lay above the mark."""
    before = opcode.stack_before
    above: list[int] = []
    if pickletools.markobject in before:
        before = before[: before.index(pickletools.markobject)]
        while (size := stack.pop()) != _MARK:
            above.append(size)
    _last(stack, len(before))
    return above


def _last(stack: list[int], count: int) -> list[int]:
    taken = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return taken
