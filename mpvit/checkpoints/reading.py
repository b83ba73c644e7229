"""Reading checkpoint files that may come from anywhere: nothing in them is executed."""

import argparse
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from mpvit.checkpoints.pickles import Multiplied, check_tuples
from mpvit.errors import UserError
from mpvit.files.sha256 import check_sha256
from mpvit.files.untrusted import (
    CHECKPOINT_BYTES,
    TRUST_VARIABLE,
    check_values,
    open_untrusted,
    trusted,
)

_HEAD_BYTES = 512
_WEB_PAGE = re.compile(rb'(\xef\xbb\xbf)?\s*<(!--|!doctype|html|head|body|\?xml)', re.I)
_LFS_POINTER = b'version https://git-lfs'
_ARCHIVE = b'PK\x03\x04'
_SAFETENSORS_HEADER = 100_000_000  # bytes that the format allows it
_UNSAFE_GLOBAL = re.compile(r'GLOBAL ([\w.]+)')

_DTYPES = ('bool', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')
_STATISTICS = ('min', 'max', 'current', 'mean')


def read(
    path: str | os.PathLike[str],
    map_location: Any = 'cpu',
    sha256: str | None = None,
    shown: str | None = None,
) -> dict[str, Any]:
    """Read a checkpoint of ours, of mmdet, or an official one, without executing anything in it.

    It may hold tensors, plain Python values, numpy arrays, `argparse.Namespace` and mmengine's
    histories of logged numbers, or be in the format safetensors, which holds tensors alone. With
    the environment variable ``MPVIT_TRUST_CHECKPOINTS=1`` it is read even if it needs to execute
    code.

    Args:
        path: File. If its name ends in 8 hex digits, as in ``resnet50-0676ba61.pth``, they must be
            the beginning of its sha256.
        map_location: Device for the tensors, as for `torch.load`.
        sha256: Expected sha256 in hex, or its beginning; None for no check beyond the name's.
        shown: What to call the file in errors, such as its address; None for the path.

    Returns:
        What the file holds.

    Raises:
        UserError: There is no such file, it is damaged or no checkpoint, has another sha256, or
            would have to execute code.
    """
    path = Path(path).expanduser()
    shown = shown or str(path)
    head = check_file(path, sha256, shown)
    if _is_safetensors(head):
        return _read_safetensors(path, map_location, shown)
    try:
        if not trusted():
            check_tuples(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(ALLOWED):
            warnings.simplefilter('ignore')  # torch on the format of foreign files
            content = torch.load(  # noqa: TID251
                path, map_location=map_location, weights_only=not trusted()
            )
    except pickle.UnpicklingError as error:
        raise _refusal(shown, str(error)) from error
    except Multiplied as error:
        raise _damaged(shown, str(error)) from error
    except Exception as error:  # whatever a damaged file leads the parsers to
        raise _damaged(shown, type(error).__name__) from error
    if not isinstance(content, dict):
        raise UserError(f'{shown} is no checkpoint: it holds a {type(content).__name__}')
    if not trusted():
        try:
            check_values(content, _parts)
        except ValueError as error:
            raise _damaged(shown, str(error)) from error
    return content


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has all of its values, one after the other: none that is sparse or meta."""
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_nested


def all_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    # a sum is finite if all are, but for an overflow; several times faster than to look at each
    return bool(tensor.detach().sum().isfinite()) or bool(tensor.isfinite().all())


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Tensor) and not is_plain(value):
        raise ValueError('a tensor that is sparse or without values')
    if isinstance(value, dict):
        return (part for entry in value.items() for part in entry)
    return value if isinstance(value, (list, tuple, set)) else ()


def check_file(path: Path, sha256: str | None = None, shown: str | None = None) -> bytes:
    """Make sure that a file could be a checkpoint and is whole, before anything reads it.

    Args:
        path: File.
        sha256: In hex, or its beginning; None for no check beyond the name's.
        shown: What to call the file in errors; None for the path.

    Returns:
        Its first bytes.

    Raises:
        UserError: There is no such file, or it is none, or it is damaged or another one.
    """
    head = _check_kind(path, shown or str(path))
    check_sha256(path, sha256, shown)
    if head.startswith(_ARCHIVE):
        _check_archive(path, shown or str(path))
    return head


def statistic(holder: Any, name: str) -> Any:
    """The only attributes that a file may name: the statistics of mmengine's histories.

    Their pickles name `builtins.getattr`, which would give access to anything.

    Raises:
        pickle.UnpicklingError: It is another attribute.
    """
    if holder is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError('GLOBAL builtins.getattr of an unknown attribute')
    return getattr(holder, name)


#: What files may name, some by the place that it was in when they were written: numpy moved two.
ALLOWED: list[Any] = [
    argparse.Namespace,  # the arguments of the run, in official files
    HistoryBuffer,
    (statistic, 'builtins.getattr'),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in _DTYPES),
    *(
        (function, f'numpy.{core}.multiarray.{name}')
        for core in ('core', '_core')
        for name, function in (
            ('_reconstruct', np.ndarray(0).__reduce__()[0]),
            ('scalar', np.float64(0).__reduce__()[0]),
        )
    ),
]


def _check_kind(path: Path, shown: str) -> bytes:
    """The first bytes of a file that could be a checkpoint."""
    try:
        with open_untrusted(path, CHECKPOINT_BYTES) as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise UserError(f'checkpoint {shown} not found') from error
    except OSError as error:
        raise UserError(f'checkpoint {shown} cannot be read: {error.strerror}') from error
    if not head:
        raise UserError(f'checkpoint {shown} is empty; download or copy it again')
    if _WEB_PAGE.match(head):
        raise UserError(
            f'{shown} is a web page, not a checkpoint: the link it came from is dead or asks for a '
            'login; docs/checkpoints.md says what to do'
        )
    if head.startswith(_LFS_POINTER):
        raise UserError(f'{shown} is a Git LFS pointer, not the file itself; run `git lfs pull`')
    if all(byte >= 32 or byte in b'\t\n\r\f' for byte in head) and b'\x7f' not in head:
        raise UserError(f'{shown} is a text file, not a checkpoint')
    return head


def _is_safetensors(head: bytes) -> bool:
    """Whether the first bytes are the length of a header in JSON and its beginning."""
    return head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= _SAFETENSORS_HEADER


def _read_safetensors(path: Path, map_location: Any, shown: str) -> dict[str, Any]:
    device = str(map_location) if isinstance(map_location, (str, torch.device)) else 'cpu'
    try:
        return safetensors.torch.load_file(path, device)
    except Exception as error:
        raise _damaged(shown, str(error) or type(error).__name__) from error


def _check_archive(path: Path, shown: str) -> None:
    """Check the checksums of a zip archive, which torch.load does not, and that it is no larger."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            # torch.save compresses nothing; a small file can claim to hold any number of bytes
            is_bomb = sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size
            broken = None if is_bomb else archive.testzip()
    except Exception as error:
        raise _damaged(shown, 'the archive is incomplete') from error
    if is_bomb:
        raise UserError(
            f'checkpoint {shown} refused: it is an archive that unpacks to more than it has; '
            'PyTorch writes none like that'
        )
    if broken is not None:
        raise _damaged(shown, f'wrong checksum of {broken}')
    if not any(name.endswith('data.pkl') for name in names):
        raise UserError(f'{shown} is a zip archive, but no PyTorch checkpoint; unpack it first')


def _damaged(path: str, reason: str) -> UserError:
    return UserError(
        f'checkpoint {path} is truncated, damaged or no checkpoint ({reason}); download or copy '
        'it again'
    )


def _refusal(path: str, message: str) -> UserError:
    named = _UNSAFE_GLOBAL.search(message)
    if named is None:
        return _damaged(path, 'it cannot be unpickled')
    return UserError(
        f'checkpoint {path} refused: it needs {named[1]}, which could execute code. '
        f'If you trust whoever made it, set {TRUST_VARIABLE}=1'
    )
