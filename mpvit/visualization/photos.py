"""Images with what was found in them, what was wrong, and what was missed."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageDraw import ImageDraw as Canvas

from mpvit.datasets.palette import class_colour, ink_on
from mpvit.evaluation.analysis import Analysis
from mpvit.evaluation.outcomes import OUTCOMES
from mpvit.visualization.style import shortened

_LINE = 2  # pixels
_DASH = 5  # pixels
_TEXT = 11  # pixels
_MARGIN = 0.5  # around a box in a crop, as a share of its longer side
_SMALLEST = 24  # pixels of the image that a crop shows at least
_GREY = (127, 127, 127)
_SIZE = 640  # pixels of an image that cannot be read and has no size
_NAME = 16  # characters of a class in a label
_ORIENTATION = 0x0112  # of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))  # width becomes height
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mistake:
    """A wrong detection or a missed object, cut out.

    Attributes:
        kind: One of `mpvit.evaluation.error_types.ERROR_TYPES`.
        image: Index of its image.
        caption: What is wrong.
        picture: The surroundings.
    """

    kind: str
    image: int
    caption: str
    picture: Image.Image


@functools.cache
def font(size: int = _TEXT) -> ImageFont.FreeTypeFont:
    """The font of labels: the one that comes with matplotlib.

    Args:
        size: In pixels.
    """
    return ImageFont.truetype(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf'), size)


class Photos:
    """The images of an analysis, drawn.

    A solid box is a detection that found an object, a dashed one with a cross a wrong one, both
    in the colour of the class; white and dashed are objects that were missed. Images are turned by
    their EXIF data where the boxes are meant so, which the config or the annotated size tells.

    Args:
        analysis: Of the detections.
        side: Longer side of the pictures in pixels.

    Attributes:
        unreadable: Image files that were to be drawn and could not be read.
    """

    def __init__(self, analysis: Analysis, side: int = 320) -> None:
        self.analysis, self.side = analysis, side
        self.unreadable: list[Path] = []

    def picture(self, image: int) -> Image.Image:
        """An image with all its boxes.

        Args:
            image: Its index.
        """
        photo, (width, height) = self._open(image, 2 * self.side)
        scale = self.side / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        drawing = _Drawing(photo.resize(size, Image.Resampling.LANCZOS), (0, 0), scale)
        self._draw_missed(drawing, image)
        self._draw_detections(drawing, image)
        return drawing.finished()

    def caption(self, image: int) -> str:
        """What was found in an image, missed, and found wrongly.

        Args:
            image: Its index; if the file cannot be read, this says so after it was tried.
        """
        scores = self.analysis.images
        counts = (scores.found[image], scores.missed[image], scores.false[image])
        blank = self.analysis.results.files[image] in self.unreadable
        text = '{} found, {} missed, {} wrong'.format(*counts)
        return f'{text}; cannot be read' if blank else text

    def mistakes(self, kind: str, count: int) -> Iterator[Mistake]:
        """The detections of a kind of error with the highest scores, or the largest missed objects.

        Args:
            kind: One of `mpvit.evaluation.error_types.ERROR_TYPES`.
            count: How many at most.
        """
        outcomes, objects = self.analysis.outcomes, self.analysis.results.objects
        if kind == 'missed':
            chosen = np.flatnonzero(outcomes.missed)
            chosen = chosen[np.argsort(-objects.boxes[chosen, 2:].prod(1), kind='stable')]
            for index in chosen[:count]:
                yield self._missed(kind, index)
            return
        detected = self.analysis.shown.detected
        chosen = np.flatnonzero(outcomes.outcome == OUTCOMES.index(kind))
        chosen = chosen[np.argsort(-detected.score[chosen], kind='stable')]
        for index in chosen[:count]:
            yield self._wrong(kind, index)

    def _missed(self, kind: str, index: int) -> Mistake:
        objects = self.analysis.results.objects
        drawing = self._crop(objects.image[index], [objects.boxes[index]])
        drawing.box(objects.boxes[index], 'white', dashed=True)
        name = self.analysis.results.names[objects.label[index]]
        return Mistake(kind, int(objects.image[index]), name, drawing.finished())

    def _wrong(self, kind: str, index: int) -> Mistake:
        detected, objects = self.analysis.shown.detected, self.analysis.results.objects
        names, target = self.analysis.results.names, self.analysis.outcomes.target[index]
        boxes = [detected.boxes[index]]
        caption = f'{names[detected.label[index]]} {detected.score[index]:.2f}'
        if target >= 0:
            boxes.append(objects.boxes[target])
            if objects.label[target] != detected.label[index]:
                caption += f', is {names[objects.label[target]]}'
        drawing = self._crop(detected.image[index], boxes)
        for box in boxes[1:]:
            drawing.box(box, 'white', dashed=True)
        drawing.box(boxes[0], class_colour(detected.label[index]))
        return Mistake(kind, int(detected.image[index]), caption, drawing.finished())

    def _crop(self, image: int, boxes: Sequence[np.ndarray]) -> '_Drawing':
        photo, _ = self._open(image)
        corners = np.array([[x, y, x + width, y + height] for x, y, width, height in boxes])
        left, top = corners[:, :2].min(0)
        right, bottom = corners[:, 2:].max(0)
        side = max(right - left, bottom - top) * (1 + 2 * _MARGIN)
        side = max(side, _SMALLEST)
        corner = ((left + right - side) / 2, (top + bottom - side) / 2)
        region = (*corner, corner[0] + side, corner[1] + side)
        size = (self.side, self.side)
        cut = photo.transform(
            size, Image.Transform.EXTENT, region, Image.Resampling.BICUBIC, fillcolor=_GREY
        )
        return _Drawing(cut, corner, self.side / side)

    def _open(self, image: int, least: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
        """An image, and its width and height in pixels of the boxes.

        Args:
            image: Its index.
            least: Longer side that is enough: a large JPEG is decoded at a fraction of its size.
        """
        path = self.analysis.results.files[image]
        try:
            with Image.open(path) as photo:
                size = photo.size
                if least is not None:
                    photo.draft('RGB', (least, least))
                turn = self._turn(image, photo, size)
                rgb = _as_rgb(photo)
                if turn is None:
                    return rgb, size
                return rgb.transpose(turn), size[::-1] if turn in _SIDEWAYS else size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            if path not in self.unreadable:
                self.unreadable.append(path)
        width, height = np.nan_to_num(self.analysis.results.sizes[image], nan=_SIZE)
        blank = Image.new('RGB', (int(width), int(height)), _GREY)
        return blank, blank.size

    def _turn(
        self, image: int, photo: Image.Image, size: tuple[int, int]
    ) -> Image.Transpose | None:
        """How to turn an image to what its boxes are about; None for not at all."""
        try:
            turn = _TURNS.get(photo.getexif().get(_ORIENTATION, 1))
        except Exception:  # damaged EXIF data are no reason to leave out an image
            return None
        turns = self.analysis.results.exif_turns
        if turns is None:  # the annotated size may tell
            stated = tuple(self.analysis.results.sizes[image])
            turns = turn in _SIDEWAYS and stated == size[::-1]
        return turn if turns else None

    def _draw_missed(self, drawing: '_Drawing', image: int) -> None:
        objects, found = self.analysis.results.objects, self.analysis.outcomes.found
        names = self.analysis.results.names
        for index in _rows(objects.image, image):
            if not found[index]:
                name = 'crowd of ' if objects.crowd[index] else 'missed '
                name += shortened(names[objects.label[index]], _NAME)
                drawing.box(objects.boxes[index], 'white', name, dashed=True)

    def _draw_detections(self, drawing: '_Drawing', image: int) -> None:
        detected, outcomes = self.analysis.shown.detected, self.analysis.outcomes
        names = self.analysis.results.names
        for index in reversed(_rows(detected.image, image)):  # the best on top
            good = OUTCOMES[outcomes.outcome[index]] in ('found', 'ignored')
            label = f'{shortened(names[detected.label[index]], _NAME)} {detected.score[index]:.2f}'
            drawing.box(
                detected.boxes[index],
                class_colour(detected.label[index]),
                label if good else f'✗ {label}',
                dashed=not good,
            )


class _Drawing:
    """Boxes and labels on a picture; labels come last and keep clear of each other.

    Args:
        picture: The picture, which is drawn on.
        origin: Pixel of the image at its upper left corner.
        scale: Pixels of the picture per pixel of the image.
    """

    def __init__(self, picture: Image.Image, origin: tuple[float, float], scale: float) -> None:
        self.picture, self.origin, self.scale = picture, origin, scale
        self.canvas = ImageDraw.Draw(picture)
        self.labels: list[tuple[Box, str, str]] = []

    def box(self, box: np.ndarray, colour: str, label: str = '', dashed: bool = False) -> None:
        """Draw a box, given as ``(x, y, width, height)`` in pixels of the image."""
        corner = (box[:2] - self.origin) * self.scale
        x, y, right, bottom = (*corner, *(corner + box[2:] * self.scale))
        place = (x, y, max(right, x + 1), max(bottom, y + 1))
        if dashed:
            self.canvas.rectangle(place, outline='black', width=_LINE)
            _dashes(self.canvas, place, colour)
        else:
            self.canvas.rectangle(place, outline=colour, width=_LINE)
        if label:
            self.labels.append((place, label, colour))

    def finished(self) -> Image.Image:
        """The picture with its labels."""
        taken: list[Box] = []
        for place, label, colour in reversed(self.labels):
            left, top, right, bottom = font().getbbox(label)
            size = (right - left + 5, _TEXT + 4)
            spot = _free_spot(place, size, self.picture.size, taken)
            taken.append((spot[0], spot[1], spot[0] + size[0], spot[1] + size[1]))
            self.canvas.rectangle(taken[-1], fill=colour)
            ink = 'black' if colour == 'white' else ink_on(colour)
            self.canvas.text((spot[0] + 3, spot[1] + 1), label, ink, font())
        return self.picture


def _dashes(canvas: Canvas, place: Box, colour: str) -> None:
    x, y, right, bottom = place
    for start in np.arange(x, right, 2 * _DASH):
        for level in (y, bottom - 1):
            canvas.line((start, level, min(start + _DASH, right), level), colour, _LINE)
    for start in np.arange(y, bottom, 2 * _DASH):
        for level in (x, right - 1):
            canvas.line((level, start, level, min(start + _DASH, bottom)), colour, _LINE)


def _free_spot(
    place: Box, size: tuple[float, float], frame: tuple[int, int], taken: Sequence[Box]
) -> tuple[float, float]:
    """Where a label covers no other: above its box, in it or below; above if nowhere."""
    width, height = size
    x, y, right, bottom = place
    spots = [(x, y - height), (x, y), (right - width, y), (x, bottom - height), (x, bottom)]
    spots += [(right - width, y - height), (right - width, bottom)]
    inside = [
        (min(max(a, 0), max(frame[0] - width, 0)), min(max(b, 0), max(frame[1] - height, 0)))
        for a, b in spots
    ]
    for a, b in inside:
        covered = (
            a < right_ and b < bottom_ and a + width > left_ and b + height > top_
            for left_, top_, right_, bottom_ in taken
        )
        if not any(covered):
            return a, b
    return inside[0]


def _rows(column: np.ndarray, value: int) -> list[int]:
    """Where an ascending column has a value."""
    start, end = np.searchsorted(column, [value, value + 1])
    return list(range(start, end))


def _as_rgb(photo: Image.Image) -> Image.Image:
    """In 8 bits of red, green and blue."""
    if photo.mode.startswith('I') or photo.mode == 'F':
        values = np.asarray(photo, np.float64)
        photo = Image.fromarray((values / max(values.max(), 1) * 255).astype(np.uint8))
    return photo.convert('RGB')
