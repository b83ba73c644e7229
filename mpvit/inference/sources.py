"""From what a user names to single images, one after the other and some ahead of their use."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from mpvit.errors import UserError
from mpvit.files.download import content_type
from mpvit.files.paths import is_image
from mpvit.inference.images import Pixels, as_pixels, read_image
from mpvit.inference.inputs import Place, as_stream, find
from mpvit.inference.live import live_frames
from mpvit.inference.video import Moment, frames

# Pictures one after the other, and playlists of HTTP live streaming.
_STREAMED = ('multipart/x-mixed-replace', 'application/vnd.apple.mpegurl', 'application/x-mpegurl')
_THREADS = min(4, os.cpu_count() or 1)
_PATIENCE = 0.5  # seconds for images that are being read when nobody wants more
T = TypeVar('T')
R = TypeVar('R')


@dataclass(frozen=True)
class Source:
    """One image and where it came from.

    Attributes:
        path: File or URL; ``'camera 0'``; ``'image 3'`` for the fourth of images that are no files.
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
        for place in map(_seen, places):
            yield from _in_video(place) if place.is_video else [partial(_in_file, place)]


def ahead(function: Callable[[T], R], items: Iterable[T], depth: int) -> Iterator[R]:
    """Results of a function in the order of the items, computed in threads before they are needed.

    Items are taken one by one, in this thread; at most ``depth`` results wait. A thread that is
    still busy when nobody wants more is left behind and does not keep the program from ending, as
    one of Python's own pools would: a slow server must not hold up an interrupt.
    """
    todo: SimpleQueue[tuple[Future[R], T] | None] = SimpleQueue()
    threads = [Thread(target=_work, args=(function, todo), daemon=True) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(Future())
            todo.put((waiting[-1], item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for _ in threads:
            todo.put(None)
        end = time.monotonic() + _PATIENCE  # decoders do not like to be cut off
        for thread in threads:
            thread.join(max(0, end - time.monotonic()))


def _work(function: Callable[[T], R], todo: 'SimpleQueue[tuple[Future[R], T] | None]') -> None:
    while (task := todo.get()) is not None:
        future, item = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(item))
            except BaseException as error:
                future.set_exception(error)


def _in_memory(image: Any, name: str) -> Source:
    try:
        return Source(name, name, as_pixels(image))
    except UserError as error:
        raise UserError(f'{name}: {error}') from error


def _in_file(place: Place) -> Source:
    with place.file() as file:
        return Source(place.path, place.name, read_image(file, place.path))


def _seen(place: Place) -> Place:
    """The place, as that of a stream if the server says so; cameras seldom name a file."""
    named = is_image(place.name) or place.is_video
    if place.is_url and not named and content_type(place.path) in _STREAMED:
        return as_stream(place.path)
    return place


def _in_video(place: Place) -> Iterator[Loader]:
    """Frames are decoded here, one after the other; the decoder has threads of its own."""
    try:
        with nullcontext() if place.live else place.file() as file:
            found = frames(file, place.path) if file else live_frames(place)
            for moment, pixels in found:
                yield partial(Source, place.shown, place.name, pixels, moment)
    except UserError as error:
        yield partial(_fail, error)


def _fail(error: UserError) -> Source:
    raise error
