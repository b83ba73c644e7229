"""From what a user names to single images, one after the other and some ahead of their use."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from mpvit.errors import UserError
from mpvit.inference.images import Pixels, as_pixels, read_image
from mpvit.inference.inputs import Place, find
from mpvit.inference.video import Moment, frames

_THREADS = min(4, os.cpu_count() or 1)
T = TypeVar('T')
R = TypeVar('R')


@dataclass(frozen=True)
class Source:
    """One image and where it came from.

    Attributes:
        path: File or URL; ``'image 3'`` for the fourth of images that are no files.
        name: Relative path for what is made of it.
        image: Its pixels, RGB, ``(H, W, 3)``, as shown: turned as EXIF or video metadata say.
        moment: Where it stands in a video; None for an image.
    """

    path: str
    name: str
    image: Pixels
    moment: Moment | None = None


Loader = Callable[[], Source]


def loaders(inputs: Any) -> Iterator[Loader]:
    """A function for each image and each frame that loads it, or raises `UserError`.

    Inputs are one or several of what `mpvit.inference.images.as_pixels` and
    `mpvit.inference.inputs.find` take, and of places.

    Raises:
        UserError: A path stands for nothing.
    """
    single = isinstance(inputs, (str, os.PathLike, np.ndarray, Tensor, Image.Image))
    for number, given in enumerate([inputs] if single else inputs):
        if isinstance(given, (str, os.PathLike)):
            places = find([given])
        elif isinstance(given, Place):
            places = [given]
        else:
            places = []
            yield partial(_in_memory, given, f'image {number}')
        for place in places:
            yield from _in_video(place) if place.is_video else [partial(_in_file, place)]


def ahead(function: Callable[[T], R], items: Iterable[T], depth: int) -> Iterator[R]:
    """Results of a function in the order of the items, computed in threads before they are needed.

    Items are taken one by one, in this thread; at most ``depth`` results wait.
    """
    pool = ThreadPoolExecutor(_THREADS)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _in_memory(image: Any, name: str) -> Source:
    try:
        return Source(name, name, as_pixels(image))
    except UserError as error:
        raise UserError(f'{name}: {error}') from error


def _in_file(place: Place) -> Source:
    with place.file() as file:
        return Source(place.path, place.name, read_image(file, place.path))


def _in_video(place: Place) -> Iterator[Loader]:
    """Frames are decoded here, one after the other; the decoder has threads of its own."""
    try:
        with place.file() as file:
            for moment, pixels in frames(file, place.path):
                yield partial(Source, place.path, place.name, pixels, moment)
    except UserError as error:
        yield partial(_fail, error)


def _fail(error: UserError) -> Source:
    raise error
