"""The folder of pictures and videos with detections drawn in."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path, PurePosixPath

from PIL import Image

from mpvit.errors import UserError
from mpvit.files.writing import NotWritten, whole_file, write_picture
from mpvit.inference.detections import Detections
from mpvit.inference.drawing import draw
from mpvit.inference.sources import Source
from mpvit.inference.video import Moment, VideoWriter

_JPEG = ('.jpg', '.jpeg', '.jpe', '.jfif')


class Pictures:
    """Writes pictures below a folder under the names that the images have.

    JPEG files become JPEG files, other images PNG files, videos MP4 files. Where two images have
    one name, the second is numbered. The folder is made when the first picture is written.

    Args:
        folder: The folder.
        failed: Is given the error of a video that the encoder refuses, such as for a time that MP4
            cannot hold. Its other frames are left out; other pictures can still be written.
    """

    def __init__(self, folder: Path, failed: Callable[[UserError], object]) -> None:
        self._folder, self._failed = folder, failed
        self._taken: set[str] = set()
        self._begun: str | None = None  # the video whose frames come
        self._video: VideoWriter | None = None  # none if it was given up
        self._unfinished = ExitStack()
        self._path = folder

    def add(self, source: Source, found: Detections) -> Path | None:
        """Draw into an image, or into the next frame of a video.

        Returns:
            The file; None if the video was given up.

        Raises:
            UserError: The file cannot be written, as on a full disk.
        """
        drawn = draw(source.image, found)
        if source.moment is None:
            self.close()
            suffix = PurePosixPath(source.name).suffix.lower()
            self._path = self._free_path(source.name, '.jpg' if suffix in _JPEG else '.png')
            return write_picture(self._path, Image.fromarray(drawn), quality=95)
        if source.path != self._begun or source.moment.frame == 0:
            self.close()
            self._begun, self._path = source.path, self._free_path(source.name, '.mp4')
            with self._given_up():
                video = _whole_video(self._path, source.moment, found.size)
                self._video = self._unfinished.enter_context(video)
        if self._video is not None:
            with self._given_up():
                self._video.write(drawn, source.moment)
        return self._path if self._video is not None else None

    def close(self) -> None:
        """Finish the video that is being written."""
        self._begun = self._video = None
        with self._given_up():
            self._unfinished.close()

    @contextmanager
    def _given_up(self) -> Iterator[None]:
        """Give up a video that the encoder refuses; what is before that can be played."""
        try:
            yield
        except NotWritten:  # no other file could be written either
            raise
        except UserError as error:
            self._video = None
            with suppress(UserError):
                self._unfinished.close()
            self._failed(UserError(str(error)))  # without frames, which would keep the encoder

    def _free_path(self, name: str, suffix: str) -> Path:
        wanted = PurePosixPath(name).with_suffix(suffix)
        chosen, number = wanted, 1
        while str(chosen).lower() in self._taken:
            number += 1
            chosen = wanted.with_stem(f'{wanted.stem}_{number}')
        self._taken.add(str(chosen).lower())
        return self._folder / chosen


@contextmanager
def _whole_video(path: Path, first: Moment, size: tuple[int, int]) -> Iterator[VideoWriter]:
    """A video that has its name when it is finished."""
    with whole_file(path) as beside, closing(VideoWriter(beside, first, size, path)) as video:
        yield video
