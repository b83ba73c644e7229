"""Videos by PyAV: frames in, frames out at the same moments."""

import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from mpvit.errors import UserError, optional
from mpvit.files.untrusted import (
    MOST_PIXELS,
    PIXELS_VARIABLE,
    VIDEO_BYTES,
    limit,
    open_untrusted,
)
from mpvit.inference.images import Pixels

_WHOLE = 0.9  # of the stated number of frames, which is not exact everywhere
# FFmpeg's demuxers that read nothing but the file itself. It tells formats by their content, and
# would follow a list of other files or addresses that is named like a video.
_DEMUXERS = 'mov,matroska,avi,flv,mpeg,mpegts,mpegvideo,m4v,h264,hevc,ogg,asf'
_PROTOCOLS = 'none'  # by which a demuxer may open further files


@dataclass(frozen=True)
class Moment:
    """Where a frame stands in its video.

    Attributes:
        frame: Number, from 0.
        frames: Frames of the video, an estimate for some formats; 0 if unknown.
        rate: Frames a second, on average.
        start: When it is shown, in units of ``unit`` from the first frame on.
        duration: How long, in the same units; 0 if unknown.
        unit: In seconds.
    """

    frame: int
    frames: int
    rate: Fraction
    start: int
    duration: int
    unit: Fraction

    @property
    def seconds(self) -> float:
        """When it is shown, from the first frame on."""
        return float(self.start * self.unit)


def frames(
    source: str | os.PathLike[str] | BinaryIO, name: str | None = None
) -> Iterator[tuple[Moment, Pixels]]:
    """Every frame of a video, turned as its metadata say.

    Args:
        source: Path, or an open file.
        name: What to call it in errors; None for the path.

    Yields:
        When the frame is shown, and its pixels, RGB, ``(H, W, 3)``.

    Raises:
        UserError: It cannot be read, or not to its end, or PyAV is missing.
    """
    av = optional('av', 'videos')
    name = name or str(source)
    number = 0
    most_pixels = limit(PIXELS_VARIABLE, MOST_PIXELS, most=2**31 - 1)  # an int of FFmpeg
    try:
        with _opened(source) as file, _container(av, file, name) as container:
            if not container.streams.video:
                raise UserError(f'{name} cannot be read: it has no pictures')
            stream = container.streams.video[0]
            stream.thread_type = 'AUTO'
            if stream.width * stream.height > most_pixels:
                raise UserError(
                    f'{name} cannot be read: it has {stream.width} x {stream.height} pixels, more '
                    f'than {most_pixels:,}; {PIXELS_VARIABLE} sets the limit'
                )
            stream.codec_context.options = dict(max_pixels=str(most_pixels))  # of any frame
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            stated, length = stream.frames, _length(stream, rate)
            first, last = None, -1
            for frame in container.decode(stream):
                unit = frame.time_base or 1 / rate
                shown = round(number / rate / unit) if frame.pts is None else frame.pts
                first = shown if first is None else first
                last = max(shown - first, last + 1)
                yield (
                    Moment(number, length, rate, last, frame.duration or 0, unit),
                    upright(frame),
                )
                number += 1
    except (av.FFmpegError, OSError) as error:
        where = f'after frame {number}: ' if number else ''
        raise UserError(f'{name} cannot be read: {where}{error.strerror or error}') from error
    if number < _WHOLE * stated or not number:
        raise UserError(f'{name} cannot be read to its end: {number} of {stated} frames')


def _opened(source: str | os.PathLike[str] | BinaryIO) -> AbstractContextManager[BinaryIO]:
    if isinstance(source, (str, os.PathLike)):
        return open_untrusted(source, VIDEO_BYTES)
    return nullcontext(source)


def _container(av: Any, file: BinaryIO, name: str) -> Any:
    options = dict(format_whitelist=_DEMUXERS, protocol_whitelist=_PROTOCOLS)
    try:
        return av.open(file, options=options)
    except av.error.ArgumentError as error:  # so FFmpeg says that it is in another format
        kinds = _DEMUXERS.replace(',', ', ')
        raise UserError(f'{name} cannot be read: it is no video of the kinds {kinds}') from error


class VideoWriter:
    """Writes an MP4 file in H.264, frame by frame. Sound is not copied.

    Frames are scaled to the size, width and height in pixels; the first moment tells rate and unit.
    Errors call the file by the name if given.

    Raises:
        UserError: The file cannot be written, or PyAV is missing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        first: Moment,
        size: tuple[int, int],
        name: str | os.PathLike[str] | None = None,
    ) -> None:
        self._av = optional('av', 'videos')
        self._path, self._name = os.fspath(path), os.fspath(name or path)
        with self._explained(), ExitStack() as opened:
            self._file = opened.enter_context(
                self._av.open(self._path, 'w', options={'movflags': '+faststart'})
            )
            stream = self._file.add_stream('libx264', rate=first.rate, options={'crf': '20'})
            stream.width, stream.height = size
            # the usual form halves the colour's resolution, which needs even sides
            stream.pix_fmt = 'yuv444p' if size[0] % 2 or size[1] % 2 else 'yuv420p'
            stream.codec_context.time_base = first.unit
            self._stream: Any = stream
            opened.pop_all()  # open until it is closed

    def write(self, pixels: Pixels, moment: Moment) -> None:
        """Add a frame, RGB, ``(H, W, 3)``, to be shown at a moment."""
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format='rgb24')
        with self._explained():
            frame.pts, frame.time_base, frame.duration = moment.start, moment.unit, moment.duration
            self._file.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file; what was written can be played."""
        with self._explained(), self._file:
            self._file.mux(self._stream.encode())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (self._av.FFmpegError, OverflowError) as error:
            if isinstance(error, OSError):  # such as a full disk, which the caller explains
                raise
            reason = getattr(error, 'strerror', None) or error
            raise UserError(f'{self._name} cannot be written as a video: {reason}') from error


def _length(stream: Any, rate: Fraction) -> int:
    """Frames as stated, or else by the duration; 0 if unknown, or more than the file could hold."""
    seconds = Fraction(stream.container.duration or 0, 10**6)
    if stream.duration:
        seconds = stream.duration * stream.time_base
    length = int(stream.frames) or round(seconds * rate)
    return length if 0 < length <= stream.container.size else 0  # each takes a byte


def upright(frame: Any) -> Pixels:
    """The pixels of a frame, turned by quarters as a phone that was held upright asks for."""
    pixels = frame.to_ndarray(format='rgb24')
    turns = frame.rotation / 90
    return np.rot90(pixels, int(turns)) if math.isclose(turns, round(turns)) else pixels
