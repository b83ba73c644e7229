"""Images with what was found in them, what was wrong, and what was missed; and all the charts."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mpvit.datasets.palette import class_colour
from mpvit.evaluation.analysis import Analysis
from mpvit.evaluation.error_types import ERROR_TYPES
from mpvit.evaluation.outcomes import OUTCOMES
from mpvit.evaluation.result_files import read_results
from mpvit.files.exif import orientation
from mpvit.files.untrusted import open_image
from mpvit.files.writing import write, write_picture
from mpvit.inference.drawing import Box
from mpvit.inference.images import Pixels, from_pillow
from mpvit.visualization.charts import CHARTS, ERROR_NAMES
from mpvit.visualization.sheets import GREY, boxed, sheet
from mpvit.visualization.style import save, shortened

_MARGIN = 0.5  # around a box in a crop, as a share of its longer side
_SMALLEST = 24  # pixels of the image that a crop shows at least
_SIZE = 640  # pixels of an image that cannot be read and has no size
_NAME = 16  # characters of a class in a label
_CROP = 160  # pixels of a mistake in a sheet
_MISSED = '#ffffff'
_LEGEND = (
    'Solid: found; dashed with ✗: wrong; white, dashed: missed. Detections from a score of {:g} on.'
)


@dataclass(frozen=True)
class Mistake:
    """A wrong detection or a missed object, cut out of the image with an index."""

    image: int
    caption: str
    picture: Image.Image


class Photos:
    """The images of an analysis, drawn.

    A solid box is a detection that found an object, a dashed one with a cross a wrong one, both
    in the colour of the class; white and dashed are objects that were missed. Images are turned by
    their EXIF data where the boxes are meant so, which the config or the annotated size tells.

    Attributes:
        side: Longer side of the pictures in pixels.
        unreadable: Image files that were to be drawn and could not be read.
    """

    def __init__(self, analysis: Analysis, side: int = 320) -> None:
        self.analysis, self.side = analysis, side
        self.unreadable: list[Path] = []

    def picture(self, image: int) -> Image.Image:
        """An image, named by its index, with all its boxes."""
        pixels, size = self._open(image, 2 * self.side)
        boxes = [*self._missed_boxes(image), *self._detected_boxes(image)]
        return boxed(pixels, boxes, self.side, size=size)

    def caption(self, image: int) -> str:
        """What was found, missed and found wrongly; after a try also that it cannot be read."""
        blank = self.analysis.results.files[image] in self.unreadable
        text = '{} found, {} missed, {} wrong'.format(*self.analysis.images[image])
        return f'{text}; cannot be read' if blank else text

    def mistakes(self, kind: str, count: int) -> Iterator[Mistake]:
        """So many errors of a kind (`ERROR_TYPES`) with the highest scores, or largest objects."""
        shown = self.analysis.shown
        if kind == 'missed':
            chosen = np.flatnonzero(shown.missed)
            rank = -self.analysis.results.objects.boxes[chosen, 2:].prod(1)
        else:
            chosen = np.flatnonzero(shown.outcome == OUTCOMES.index(kind))
            rank = -shown.results.detected.score[chosen]
        for index in chosen[np.argsort(rank, kind='stable')][:count]:
            yield self._missed(index) if kind == 'missed' else self._wrong(index)

    def _missed(self, index: int) -> Mistake:
        objects = self.analysis.results.objects
        box = Box(_corners(objects.boxes[index]), _MISSED, dashed=True)
        name = self.analysis.results.names[objects.label[index]]
        return self._cut(objects.image[index], name, [box])

    def _wrong(self, index: int) -> Mistake:
        detected, objects = self.analysis.shown.results.detected, self.analysis.results.objects
        names, target = self.analysis.results.names, self.analysis.shown.target[index]
        label = detected.label[index]
        boxes = [Box(_corners(detected.boxes[index]), class_colour(label))]
        caption = f'{names[label]} {detected.score[index]:.2f}'
        if target >= 0:
            boxes.insert(0, Box(_corners(objects.boxes[target]), _MISSED, dashed=True))
            if objects.label[target] != label:
                caption += f', is {names[objects.label[target]]}'
        return self._cut(detected.image[index], caption, boxes)

    def _cut(self, image: int, caption: str, boxes: Sequence[Box]) -> Mistake:
        pixels, _ = self._open(image)
        corners = np.array([box.corners for box in boxes])
        low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
        half = max(_SMALLEST, (high - low).max() * (1 + 2 * _MARGIN)) / 2
        centre = (low + high) / 2
        picture = boxed(pixels, boxes, self.side, (*(centre - half), *(centre + half)))
        square = picture.resize((self.side, self.side))  # whole pixels may leave one out
        return Mistake(int(image), caption, square)

    def _open(self, image: int, least: int | None = None) -> tuple[Pixels, tuple[int, int]]:
        """An image, and its width and height in pixels of the boxes.

        Where ``least`` is enough of its longer side, a large JPEG is decoded at a fraction of it.
        """
        path = self.analysis.results.files[image]
        stated = tuple(self.analysis.results.sizes[image])
        turn = self.analysis.results.exif_turns
        try:
            with open_image(path) as photo:
                size = photo.size
                if least is not None:
                    photo.draft('RGB', (least, least))
                sideways = orientation(photo) >= 5
                if turn is None:  # the annotated size may tell
                    turn = sideways and stated == size[::-1]
                return from_pillow(photo, turn), size[::-1] if turn and sideways else size
        except Exception:  # each format has errors of its own
            if path not in self.unreadable:
                self.unreadable.append(path)
        width, height = np.nan_to_num(stated, nan=_SIZE).astype(int).tolist()
        return np.full((height, width, 3), GREY, np.uint8), (width, height)

    def _missed_boxes(self, image: int) -> Iterator[Box]:
        objects, found = self.analysis.results.objects, self.analysis.shown.found
        names = self.analysis.results.names
        for index in _rows(objects.image, image):
            if not found[index]:
                name = 'crowd of ' if objects.crowd[index] else 'missed '
                name += shortened(names[objects.label[index]], _NAME)
                yield Box(_corners(objects.boxes[index]), _MISSED, name, dashed=True)

    def _detected_boxes(self, image: int) -> Iterator[Box]:
        shown, detected = self.analysis.shown, self.analysis.shown.results.detected
        names = self.analysis.results.names
        for index in reversed(_rows(detected.image, image)):  # the best on top
            good = OUTCOMES[shown.outcome[index]] in ('found', 'ignored')
            class_ = detected.label[index]
            label = f'{shortened(names[class_], _NAME)} {detected.score[index]:.2f}'
            colour, corners = class_colour(class_), _corners(detected.boxes[index])
            yield Box(corners, colour, label if good else f'✗ {label}', dashed=not good)


def contact_sheet(
    annotations: str | os.PathLike[str],
    detections: str | os.PathLike[str],
    images: str | os.PathLike[str],
    target: str | os.PathLike[str],
) -> Path:
    """Draw 24 images, evenly from the whole set, with what was found, wrong and missed.

    Args:
        annotations: Ground truth in COCO format.
        detections: Detections in COCO result format.
        images: Folder of the images.
        target: Picture to write, .png or .jpg.

    Raises:
        UserError: A file cannot be read, or they do not belong together.
    """
    analysis = Analysis(read_results(annotations, detections, images))
    total = len(analysis.results.files)
    chosen = np.linspace(0, total - 1, min(24, total)).round().astype(int).tolist()
    return write_picture(target, image_sheet(Photos(analysis, 280), chosen, '', columns=6))


def image_sheet(photos: Photos, images: Sequence[int], title: str, columns: int = 4) -> Image.Image:
    """Some images with their boxes and counts on one sheet; the title explains the boxes, too."""
    pictures = [photos.picture(image) for image in images]
    files = photos.analysis.results.files
    captions = [f'{shortened(files[i].name, 36)}\n{photos.caption(i)}' for i in images]
    legend = _LEGEND.format(photos.analysis.threshold)
    return sheet(pictures, captions, columns, photos.side, f'{title}  {legend}'.strip())


def mistake_sheet(whole: Photos, count: int = 8) -> Image.Image:
    """The errors with the highest scores, a row for each kind with so many at most."""
    photos = Photos(whole.analysis, _CROP)
    pictures: list[Image.Image | None] = []
    captions: list[str] = []
    for kind in ERROR_TYPES:
        row = list(photos.mistakes(kind, count))
        if row:
            empty = count - len(row)
            texts = [f'\n{shortened(mistake.caption, 28)}' for mistake in row]
            pictures += [mistake.picture for mistake in row] + [None] * empty
            captions += [ERROR_NAMES[kind] + texts[0], *texts[1:], *['\n'] * empty]
    whole.unreadable += photos.unreadable
    title = (
        'The wrong detections with the highest scores (solid; white, dashed: the object) '
        'and the largest missed objects'
    )
    return sheet(pictures, captions, count, _CROP, title)


def draw_errors(
    analysis: Analysis, folder: Path, *, suffix: str = '.png', count: int = 12
) -> Iterator[Path]:
    """Write the charts, the worst and best images, the worst mistakes, and all numbers.

    Args:
        analysis: Of the detections.
        folder: Where to write; it need not exist.
        suffix: Format of the charts: .png, .svg or .pdf; images are always .jpg.
        count: Images on a sheet, and mistakes of each kind, of these 10 at most.

    Yields:
        The files, each when it is written. Image files that could not be read are drawn as blanks.
    """
    text = json.dumps(analysis.as_record(), indent=1, ensure_ascii=False) + '\n'
    yield write(folder / 'errors.json', text)
    for name, (draw, _) in CHARTS.items():
        yield save(draw(analysis), folder / f'{name}{suffix}')
    photos = Photos(analysis)
    for name, chosen in analysis.ranked_images(count).items():
        # four, or so many that a sheet is not much higher than wide: a JPEG has 65,500 pixels
        columns = max(4, math.isqrt(len(chosen)))
        drawn = image_sheet(photos, chosen, f'The {name} images.', columns)
        yield write_picture(folder / f'{name}_images.jpg', drawn, quality=85)
    drawn = mistake_sheet(photos, min(count, 10))
    yield write_picture(folder / 'mistakes.jpg', drawn, quality=85)


def _corners(box: np.ndarray) -> np.ndarray:
    """``(x1, y1, x2, y2)`` of ``(x, y, width, height)``."""
    return np.concatenate([box[:2], box[:2] + box[2:]])


def _rows(column: np.ndarray, value: int) -> range:
    """Where an ascending column has a value."""
    return range(*np.searchsorted(column, [value, value + 1]).tolist())
