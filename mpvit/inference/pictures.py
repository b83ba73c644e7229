"""The folder of pictures and videos with detections drawn in."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path, PurePosixPath

from PIL import Image

from mpvit.files.writing import whole_file, write_picture
from mpvit.inference.detections import Detections
from mpvit.inference.drawing import draw
from mpvit.inference.sources import Source
from mpvit.inference.video import Moment, VideoWriter

_JPEG = ('.jpg', '.jpeg', '.jpe', '.jfif')


class Pictures:
    """Writes pictures below a folder under the names that the images have.

    JPEG files become JPEG files, other images PNG files, videos MP4 files. Where two images have
    one name, the second is numbered. The folder is made when the first picture is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: set[str] = set()
        self._video: VideoWriter | None = None
        self._unfinished = ExitStack()
        self._path = folder

    def add(self, source: Source, found: Detections) -> Path:
        """Draw into an image, or into the next frame of a video; return the file."""
        drawn = draw(source.image, found)
        if source.moment is None:
            self.close()
            suffix = PurePosixPath(source.name).suffix.lower()
            self._path = self._free_path(source.name, '.jpg' if suffix in _JPEG else '.png')
            return write_picture(self._path, Image.fromarray(drawn), quality=95)
        if self._video is None or source.moment.frame == 0:
            self.close()
            self._path = self._free_path(source.name, '.mp4')
            video = _whole_video(self._path, source.moment, found.size)
            self._video = self._unfinished.enter_context(video)
        self._video.write(drawn, source.moment)
        return self._path

    def close(self) -> None:
        """Finish the video that is being written."""
        self._video = None
        self._unfinished.close()

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
