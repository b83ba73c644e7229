"""Boxes drawn into images, by supervision's annotators: the one drawer of all pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray

from mpvit.datasets.palette import class_colour, ink_on
from mpvit.errors import optional
from mpvit.inference.detections import Detections
from mpvit.inference.images import Pixels

#: A font that comes with matplotlib and knows the letters of many languages.
FONT = get_data_path() + '/fonts/ttf/DejaVuSans.ttf'
_INK = dict(black='#000000', white='#ffffff')
_DASH = 4  # how long a dash is, in widths of the line


@dataclass(frozen=True)
class Box:
    """A box to draw.

    Attributes:
        corners: ``(x1, y1, x2, y2)`` in pixels of the picture; it may reach out of it.
        colour: ``#rrggbb``.
        label: What is written beside it; empty for nothing.
        dashed: Draw dashes with black between them, which show on every ground.
    """

    corners: Sequence[float] | NDArray[Any]
    colour: str
    label: str = ''
    dashed: bool = False


def draw(pixels: Pixels, found: Detections) -> Pixels:
    """Draw detections with class and score, a colour for each class, the best on top.

    Pixels and errors are as for `draw_boxes`.
    """
    rows = zip(found.boxes, found.labels, found.names, found.scores, strict=True)
    boxes = [
        Box(box, class_colour(label), f'{name} {score:.2f}') for box, label, name, score in rows
    ]
    return draw_boxes(pixels, boxes[::-1])


def draw_boxes(pixels: Pixels, boxes: Sequence[Box], letters: int | None = None) -> Pixels:
    """Draw boxes, sized to suit the image, and above them labels that keep clear of each other.

    Args:
        pixels: RGB, ``(H, W, 3)``; not changed.
        boxes: What to draw, the last on top.
        letters: Size of the labels' font in pixels; None for one that suits the image.

    Returns:
        The picture, RGB, ``(H, W, 3)``.

    Raises:
        UserError: supervision is not installed.
    """
    side = min(pixels.shape[:2])
    picture: Pixels = np.array(pixels[..., ::-1], order='C')  # a copy, in the BGR of supervision
    width = max(2, round(side / 350))
    for dashed, group in groupby(boxes, key=lambda box: box.dashed):
        layer = list(group)
        drawn = _outlined(picture.copy() if dashed else picture, layer, width)
        if dashed:
            ground = _outlined(picture, [Box(box.corners, '#000000') for box in layer], width)
            rows, columns = np.ogrid[: drawn.shape[0], : drawn.shape[1]]
            dashes = (rows + columns) // (_DASH * width) % 2 == 0
            drawn = np.where(dashes[..., None], drawn, ground)
        picture = drawn
    letters = letters or max(10, round(side / 45))
    return _labelled(picture, [box for box in boxes if box.label], letters)[..., ::-1]


def _outlined(picture: Pixels, boxes: Sequence[Box], width: int) -> Pixels:
    library, detections, colours = _for_supervision(picture, boxes)
    annotator: Any = library.BoxAnnotator(library.ColorPalette.from_hex(colours), width)
    return annotator.annotate(picture, detections, np.arange(len(boxes)))


def _labelled(picture: Pixels, boxes: Sequence[Box], letters: int) -> Pixels:
    if not boxes:
        return picture
    library, detections, colours = _for_supervision(picture, boxes)
    annotator: Any = library.RichLabelAnnotator(
        library.ColorPalette.from_hex(colours),
        text_color=library.ColorPalette.from_hex([_INK[ink_on(colour)] for colour in colours]),
        font_path=FONT,
        font_size=letters,
        text_padding=max(2, round(letters / 4)),
        smart_position=True,
    )
    texts = [box.label for box in boxes]
    return annotator.annotate(picture, detections, texts, np.arange(len(boxes)))


def _for_supervision(picture: Pixels, boxes: Sequence[Box]) -> tuple[Any, Any, list[str]]:
    """The library, the boxes as it takes them, and the colour of each."""
    library = optional('supervision', 'annotated pictures')
    size = np.tile(picture.shape[1::-1], 2)
    corners = np.array([box.corners for box in boxes], float).reshape(-1, 4)
    corners = np.round(corners.clip(-size, 2 * size))  # OpenCV knows small numbers only
    return library, library.Detections(xyxy=corners), [box.colour for box in boxes]
