"""What image files are: each is read and decoded, in parallel."""

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mpvit.errors import UserError
from mpvit.files.exif import orientation
from mpvit.files.untrusted import IMAGE_BYTES, open_image, read_untrusted

_CHUNK = 16  # images a thread takes at a time
_LOOKED_FOR = 256  # images of a split whose existence a quick check asks for
_DECODED = 16  # and how many of them it reads


class Facts(NamedTuple):
    """What an image file is.

    Attributes:
        path: The file.
        fault: Why it cannot be used: 'missing', or what the decoder says; empty if it can.
        size: Width and height of the stored pixels.
        mode: Pillow's mode, with ``A`` added where a palette has transparency.
        orientation: Of the EXIF data, 1 to 8; 1 is upright.
        digest: Hash of the file's bytes.
    """

    path: str
    fault: str = ''
    size: tuple[int, int] = (0, 0)
    mode: str = ''
    orientation: int = 1
    digest: bytes = b''

    def turned(self) -> 'Facts':
        """The image as its EXIF data turn it."""
        size = self.size[::-1] if self.orientation >= 5 else self.size
        return self._replace(size=size, orientation=1)


def read_facts(path: str) -> Facts:
    """Read an image file, and decode all of it."""
    try:
        data = read_untrusted(path, IMAGE_BYTES)
    except FileNotFoundError:
        return Facts(path, 'missing')
    except OSError as error:
        return Facts(path, error.strerror or type(error).__name__)
    if not data:
        return Facts(path, 'the file is empty')
    digest = hashlib.blake2b(data, digest_size=16).digest()
    try:
        with open_image(io.BytesIO(data)) as image:
            image.load()
            mode = image.mode
            if mode == 'P' and 'transparency' in image.info:
                mode = 'PA'
            return Facts(path, '', image.size, mode, orientation(image), digest)
    except UserError:  # of a variable, not of the file
        raise
    except Exception as error:  # decoders raise anything on damaged files
        reason = isinstance(error, OSError) and error.strerror
        return Facts(path, reason or str(error) or type(error).__name__)


def look_at(paths: Sequence[str], workers: int) -> list[Facts]:
    """Read image files in parallel, with a progress bar on a terminal.

    Threads are enough, since the interpreter is free while a file is read, hashed or decoded.
    """
    with warnings.catch_warnings(), ThreadPool(workers) as pool:
        warnings.simplefilter('ignore')  # about damaged EXIF data and large images
        facts = pool.imap(read_facts, paths, chunksize=_CHUNK)
        return list(tqdm(facts, 'reading images', len(paths), unit='img', disable=None))


def sample_paths(paths: Sequence[str]) -> list[str]:
    """Image files that a quick check reads: those that are missing of many, and a few others."""
    chosen = _spread(paths, _LOOKED_FOR)
    read = set(_spread([path for path in chosen if os.path.exists(path)], _DECODED))
    return [path for path in chosen if path in read or not os.path.exists(path)]


def _spread(paths: Sequence[str], count: int) -> list[str]:
    """Up to ``count`` of them, evenly spread."""
    if not paths:
        return []
    rows = np.unique(np.linspace(0, len(paths) - 1, count).astype(int))
    return [paths[row] for row in rows]
