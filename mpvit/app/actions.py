"""What the page does, without the page."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from mpvit.app.detectors import Detectors
from mpvit.app.pictures import read_picture, thumbnail, write_shown
from mpvit.app.results import Result
from mpvit.errors import UserError

#: How long uploads and copies for the browser stay.
KEPT_SECONDS = 3600
_EXAMPLES = 24  # pictures offered; more would make the page slow
_THUMBNAIL = 200  # pixels


class Actions:
    """One method for each thing that a user can ask for.

    Numbers come from the browser and can be anything; paths never do.

    Args:
        detectors: The detectors that are offered.
        pictures: The pictures that are offered.
        folder: Where copies for the browser are written.
    """

    def __init__(self, detectors: Detectors, pictures: Sequence[Path], folder: Path) -> None:
        self.detectors = detectors
        self.folder = folder
        made = [(path, thumbnail(path, _THUMBNAIL)) for path in pictures[:_EXAMPLES]]
        #: The pictures that are offered, with what is shown of them.
        self.examples: list[tuple[Path, Image.Image]] = [
            (path, small) for path, small in made if small is not None
        ]

    def example(self, index: int) -> str:
        """Path of a picture that is offered.

        Args:
            index: Which.

        Raises:
            UserError: There is no such picture.
        """
        _check_index(index, len(self.examples), 'picture')
        return str(self.examples[index][0])

    def detect(self, path: str, source: str) -> Result:
        """Run a detector on a picture.

        Args:
            path: The picture, of which nothing is known.
            source: Name of the detector.

        Raises:
            UserError: See `read_picture` and `Detectors.detect`.
        """
        pixels = read_picture(path)
        detections, layers = self.detectors.detect(source, pixels)
        for copy in self.folder.iterdir():
            if time.time() - copy.stat().st_mtime > KEPT_SECONDS:
                copy.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix='.webp', delete=False) as file:
            write_shown(pixels, file.name)
        return Result(path, file.name, source, detections, layers)

    def select(self, result: Result, detection: int | None, layer: int) -> Result:
        """Look at a detection, or at none; some detectors do not tell what they sample.

        Args:
            result: The picture.
            detection: Which detection; None for none.
            layer: Which decoder layer, from 0.

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


def _check_index(index: int, count: int, kind: str) -> None:
    if not (isinstance(index, int) and 0 <= index < count):
        raise UserError(f'there is no {kind} {index}')
