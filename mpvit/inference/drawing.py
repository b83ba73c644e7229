"""Detections drawn into images, by supervision's annotators."""

from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib import get_data_path

from mpvit.datasets.palette import CLASSES, ink_on
from mpvit.errors import optional
from mpvit.inference.detections import Detections
from mpvit.inference.images import Pixels

_FONT = '/fonts/ttf/DejaVuSans.ttf'  # of matplotlib: knows the letters of many languages
_INK = dict(black='#000000', white='#ffffff')


def draw(pixels: Pixels, found: Detections) -> Pixels:
    """Draw boxes with class and score, a colour for each class, sized to suit the image.

    Args:
        pixels: RGB, ``(H, W, 3)``; not changed.
        found: What was found in it.

    Returns:
        The picture, RGB, ``(H, W, 3)``.

    Raises:
        UserError: supervision is not installed.
    """
    boxes, labels = _annotators(min(pixels.shape[:2]))
    found = found[::-1]  # the best on top
    detections = found.to_supervision()
    texts = [f'{name} {score:.2f}' for name, score in zip(found.names, found.scores, strict=True)]
    picture = np.array(pixels[..., ::-1], order='C')  # a copy, in the BGR of supervision
    picture = boxes.annotate(picture, detections)
    picture = labels.annotate(picture, detections, texts)
    return picture[..., ::-1]


@lru_cache(maxsize=64)
def _annotators(side: int) -> tuple[Any, Any]:
    """Annotators for images whose short side has so many pixels."""
    library = optional('supervision', 'annotated pictures')
    colours = library.ColorPalette.from_hex(list(CLASSES))
    boxes = library.BoxAnnotator(colours, thickness=max(1, round(side / 350)))
    labels = library.RichLabelAnnotator(
        colours,
        text_color=library.ColorPalette.from_hex([_INK[ink_on(colour)] for colour in CLASSES]),
        font_path=get_data_path() + _FONT,
        font_size=max(9, round(side / 45)),
        text_padding=max(1, round(side / 200)),
        smart_position=True,
    )
    return boxes, labels
