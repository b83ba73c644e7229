"""What the page does, without the page."""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

import mpvit.register  # noqa: F401
from mpvit.app.detectors import Detectors
from mpvit.app.results import Result
from mpvit.errors import UserError
from mpvit.files.untrusted import PAGE_FORMATS, PAGE_PIXELS
from mpvit.inference.images import read_image

#: How long uploads and copies for the browser stay.
KEPT_SECONDS = 3600
_EXAMPLES = 24  # pictures offered; more would make the page slow
_THUMBNAIL = 200  # pixels of the longer side
_SHOWN = 1600  # the same of the copy that the page shows


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """A picture that a stranger sent: its content tells what it is, never its name.

    Returns:
        RGB, upright as its EXIF data says.

    Raises:
        UserError: It is no picture, of a kind that is not taken, damaged, or too large.
    """
    name = Path(path).name
    return Image.fromarray(read_image(path, name, formats=PAGE_FORMATS, most_pixels=PAGE_PIXELS))


class Actions:
    """One method for each thing that a user can ask for.

    Numbers come from the browser and can be anything; paths never do. Copies of pictures for the
    browser are written into the folder; of the pictures those are offered that can be read.
    """

    def __init__(self, detectors: Detectors, pictures: Sequence[Path], folder: Path) -> None:
        self.detectors = detectors
        self.folder = folder
        #: The pictures that are offered, with what is shown of them.
        self.examples: list[tuple[Path, Image.Image]] = []
        for path in pictures[:_EXAMPLES]:
            try:
                self.examples.append((path, _small(read_picture(path), _THUMBNAIL)))
            except UserError:
                continue

    def example(self, index: int) -> str:
        """Path of a picture that is offered.

        Raises:
            UserError: There is no such picture.
        """
        _check_index(index, len(self.examples), 'picture')
        return str(self.examples[index][0])

    def detect(self, path: str, source: str) -> Result:
        """Run a detector, by its name, on a picture of which nothing is known.

        Raises:
            UserError: See `read_picture` and `Detectors`.
        """
        picture = read_picture(path)
        detections, layers = self.detectors.detect(source, picture)
        for copy in self.folder.iterdir():
            if time.time() - copy.stat().st_mtime > KEPT_SECONDS:
                copy.unlink(missing_ok=True)
        # of a kind and a size that every browser takes
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix='.webp', delete=False) as file:
            _small(picture, _SHOWN).save(file, 'WEBP', quality=90)
        return Result(path, file.name, source, detections, layers)

    def select(self, result: Result, detection: int | None, layer: int) -> Result:
        """Look at a detection, or at none, in a decoder layer, counted from 0.

        Some detectors do not tell what they sample.

        Raises:
            UserError: There is no such detection or layer, or see `detect`.
        """
        if detection is None:
            return replace(result, selected=None)
        _check_index(detection, len(result.detections), 'detection')
        points = result.points
        if result.layers and (points is None or points.layer != layer):
            points = self.detectors.look(result.source, read_picture(result.path), layer)
        return replace(result, selected=detection, points=points)


def _small(picture: Image.Image, side: int) -> Image.Image:
    small = picture.copy()
    small.thumbnail((side, side))
    return small


def _check_index(index: int, count: int, kind: str) -> None:
    if not (isinstance(index, int) and 0 <= index < count):
        raise UserError(f'there is no {kind} {index}')
