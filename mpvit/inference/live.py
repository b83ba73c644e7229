"""Cameras and streams: the newest frame whenever one is wanted, until they end."""

import errno
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any

import cv2

from mpvit.errors import UserError, optional
from mpvit.inference.images import Pixels
from mpvit.inference.inputs import Place
from mpvit.inference.video import Moment, upright

_OPENING, _SILENT = 15.0, 30.0  # seconds to wait for a stream, and for its next frame
# What a stream may consist of; a playlist could name files of this machine otherwise.
_PROTOCOLS = 'crypto,http,https,httpproxy,rtmp,rtmps,rtp,rtsp,rtsps,srt,srtp,tcp,tls,udp'
_UNIT = Fraction(1, 1000)
_RATE = Fraction(25)  # for the header of a video; its frames have moments of their own

_Shown = tuple[float, Pixels]


def live_frames(place: Place) -> Iterator[tuple[Moment, Pixels]]:
    """Frames of a camera or a stream as they come.

    Those that come while the last one is in use are left out, so that results do not fall behind.

    Yields:
        When the frame came, in milliseconds since the first, and its pixels, RGB, ``(H, W, 3)``.

    Raises:
        UserError: It cannot be opened, or breaks off.
    """
    newest: Queue[_Shown | UserError | None] = Queue(1)
    left = Event()
    Thread(target=_read, args=(place, newest, left), daemon=True).start()
    first, last, number = None, -1, 0
    try:
        while (found := newest.get()) is not None:
            if isinstance(found, UserError):
                raise found
            came, pixels = found
            first = came if first is None else first
            last = max(round((came - first) / _UNIT), last + 1)
            yield Moment(number, 0, _RATE, last, 0, _UNIT), pixels
            number += 1
    finally:
        left.set()


def _read(place: Place, newest: Queue[_Shown | UserError | None], left: Event) -> None:
    """Keep the newest frame, and after it how the pictures ended, until nobody wants them."""
    end = None
    try:
        with closing(_streamed(place) if place.is_url else _filmed(place)) as pictures:
            for pixels in pictures:
                if left.is_set():
                    return
                try:
                    newest.get_nowait()
                except Empty:
                    pass
                newest.put((time.monotonic(), pixels))
    except UserError as error:
        end = error
    while not left.is_set():
        try:
            newest.put(end, timeout=0.1)
            return
        except Full:  # the last frame is not taken yet
            pass


def _filmed(place: Place) -> Generator[Pixels, None, None]:
    """By OpenCV, which knows the cameras of each system by number."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(int(place.path))
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        if not capture.isOpened():
            raise UserError(
                f'{place.shown} cannot be opened: it is not connected, in use, or not allowed for '
                f'you; and there is no file {place.path}'
            )
        pixels: Any
        there, pixels = capture.read()
        if not there:
            raise UserError(f'{place.shown} gives no pictures; is another program using it?')
        while there:
            yield pixels[..., ::-1]
            there, pixels = capture.read()
    finally:
        capture.release()


def _streamed(place: Place) -> Generator[Pixels, None, None]:
    """By PyAV, as videos are."""
    av = optional('av', 'streams')
    options = dict(protocol_whitelist=_PROTOCOLS, rtsp_transport='tcp')
    number = 0
    try:
        with av.open(place.path, options=options, timeout=(_OPENING, _SILENT)) as container:
            if not container.streams.video:
                raise UserError(f'{place.shown} has no pictures')
            for packet in container.demux(video=0):
                try:
                    decoded = packet.decode()
                except av.error.InvalidDataError:  # its beginning was sent earlier, or got lost
                    continue
                for frame in decoded:
                    yield upright(frame)
                    number += 1
    except (av.FFmpegError, OSError) as error:
        if number and error.errno == errno.EIO:  # so FFmpeg says that JPEG files come no more
            return
        what = f'broke off after {number} frames' if number else 'cannot be opened'
        silent = isinstance(error, av.error.ExitError)  # PyAV's own, after its time is over
        reason = 'nothing comes' if silent else error.strerror or error
        raise UserError(f'{place.shown} {what}: {reason}') from error
