"""What sheets are made of: images with boxes in one size, and many of them on one picture."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mpvit.inference.drawing import FONT, Box, draw_boxes
from mpvit.inference.images import Pixels

GREY = (127, 127, 127)  # where there is no image
_GAP = 10  # pixels between pictures
_LINE = 16  # pixels of a line of text


def boxed(
    image: Pixels,
    boxes: Sequence[Box],
    side: int,
    region: Sequence[float] | NDArray[np.float64] | None = None,
    size: tuple[int, int] | None = None,
    letters: int | None = None,
) -> Image.Image:
    """An image, or a part of it, brought to a size, with boxes.

    Args:
        image: RGB, ``(H, W, 3)``.
        boxes: In pixels of the image.
        side: Longer side of the picture in pixels.
        region: ``(x1, y1, x2, y2)`` to show, in pixels of the image. It may reach out of the image,
            where it is grey. None for the whole image.
        size: Width and height that boxes and region are about, if the image was decoded at a
            fraction of them.
        letters: As for `draw_boxes`.
    """
    height, width = image.shape[:2]
    size = size or (width, height)
    corners = np.asarray((0, 0, *size) if region is None else region) * (width / size[0])
    left, top, right, bottom = np.round(corners).astype(int).tolist()
    part = Image.new('RGB', (right - left, bottom - top), GREY)
    part.paste(Image.fromarray(np.ascontiguousarray(image)), (-left, -top))
    scale = side / max(part.size)
    shape = [max(1, round(length * scale)) for length in part.size]
    part = part.resize((shape[0], shape[1]), Image.Resampling.LANCZOS, reducing_gap=3)
    origin = np.array([left, top, left, top])
    moved = [
        replace(box, corners=(np.asarray(box.corners) * (width / size[0]) - origin) * scale)
        for box in boxes
    ]
    return Image.fromarray(np.ascontiguousarray(draw_boxes(np.asarray(part), moved, letters)))


def reach(
    corners: Sequence[Sequence[float] | NDArray[Any]], size: tuple[int, int], margin: float
) -> NDArray[np.float64]:
    """The region that shows an image, and boxes that reach out of it.

    Args:
        corners: ``(x1, y1, x2, y2)`` of the boxes in pixels, in any order.
        size: Width and height of the image in pixels.
        margin: How far the region may reach out at each side, as a share of the image.
    """
    points = np.array([(0, 0, *size), *corners], dtype=float).reshape(-1, 2)
    points = points.clip(-margin * np.array(size), (1 + margin) * np.array(size))
    return np.concatenate([points.min(0), points.max(0)])


def sheet(
    pictures: Sequence[Image.Image | None],
    captions: Sequence[str],
    columns: int,
    side: int,
    title: str,
    legend: Sequence[tuple[str, str]] = (),
) -> Image.Image:
    """Many pictures on one, row by row, in at most so many columns.

    Args:
        pictures: None leaves a place empty.
        captions: A text of one or more lines over each.
        columns: Pictures in a row at most.
        side: Pixels that a picture may be wide.
        title: Line at the top.
        legend: Texts below, each beside a patch of a colour.
    """
    columns = max(1, min(columns, len(pictures)))
    rows = [range(i, min(i + columns, len(pictures))) for i in range(0, len(pictures), columns)]
    heads = [_LINE * max(captions[i].count('\n') + 1 for i in row) for row in rows]
    bodies = [max([0, *(p.height for i in row if (p := pictures[i]))]) for row in rows]
    width = max(columns * (side + _GAP), int(font(13).getlength(title)) + _GAP) + _GAP
    places, end = _flow([text for text, _ in legend], width)
    top = _LINE + 2 * _GAP
    foot = top + sum(heads) + (sum(bodies) or 2 * _LINE) + _GAP * len(rows)
    picture = Image.new('RGB', (width, foot + end), 'white')
    canvas = ImageDraw.Draw(picture)
    canvas.text((_GAP, _GAP), title, 'black', font(13))
    if not pictures:
        canvas.text((_GAP, top), 'There are none.', 'black', font(13))
    for row, head, body in zip(rows, heads, bodies, strict=True):
        for place in row:
            x = _GAP + (place - row.start) * (side + _GAP)
            canvas.multiline_text((x, top), captions[place], 'black', font(11), spacing=3)
            if (shown := pictures[place]) is not None:
                picture.paste(shown, (x, top + head))
        top += head + body + _GAP
    for (text, colour), (x, y) in zip(legend, places, strict=True):
        canvas.rectangle((x, foot + y + 2, x + 10, foot + y + 12), colour)
        canvas.text((x + 15, foot + y), text, 'black', font(11))
    return picture


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font of captions, so many pixels large."""
    return ImageFont.truetype(FONT, size)


def _flow(texts: Sequence[str], width: int) -> tuple[list[tuple[int, int]], int]:
    """Where texts stand that are set in lines, and how high these are together."""
    places, x, y = [], _GAP, 0
    for text in texts:
        length = int(font(11).getlength(text)) + 15 + 2 * _GAP
        if x + length > width and x > _GAP:
            x, y = _GAP, y + _LINE
        places.append((x, y))
        x += length
    return places, y + _LINE + _GAP if texts else 0
