"""Large images with many small objects, cut into tiles to train on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_KEPT = 0.5  # of the area of a box has to lie in a tile


@dataclass(frozen=True)
class Tile:
    """A part of an image, with the boxes that lie in it.

    Attributes:
        place: Corners ``(x1, y1, x2, y2)`` in pixels of the image, for `PIL.Image.Image.crop`.
        boxes: Boxes ``(x1, y1, x2, y2)`` in pixels of the tile, cut to it, ``(N, 4)``.
        rows: Which boxes of the image these are, ``(N,)``.
    """

    place: tuple[int, int, int, int]
    boxes: NDArray[np.float64]
    rows: NDArray[np.intp]


def tiles(
    size: tuple[int, int],
    boxes: ArrayLike,
    side: int = 400,
    *,
    overlapping: bool = False,
) -> Iterator[Tile]:
    """Cut an image and its boxes into tiles, row by row from the top left.

    Width and height are each cut into equal parts, ``round(length / side)`` of them, so that no
    narrow rest is left: a part is 3/4 to 5/4 of ``side`` long, and what is shorter than 3/2 of it
    is not cut. Together the tiles cover the image, each of its pixels once unless they overlap.

    Args:
        size: Width and height of the image in pixels.
        boxes: Boxes ``(x1, y1, x2, y2)`` in pixels within the image, each with an area, ``(M, 4)``.
        side: What the sides of the tiles should measure in pixels.
        overlapping: A tile begins also in the middle of each other, in both directions. Then every
            box that is more than a pixel smaller than half a tile lies whole in at least one.

    Yields:
        All tiles, also those without boxes. A box belongs to the tiles in which at least half of
        its area lies: to several, or to none if it is larger than a tile or lies across the corner
        where four meet.
    """
    table = np.asarray(boxes, np.float64).reshape(-1, 4)
    areas = _areas(table)
    for top, bottom in _parts(size[1], side, overlapping):
        for left, right in _parts(size[0], side, overlapping):
            corner = np.array([left, top, left, top])
            cut = table.clip(corner, [right, bottom, right, bottom])
            rows = np.flatnonzero(_areas(cut) >= _KEPT * areas)
            yield Tile((left, top, right, bottom), cut[rows] - corner, rows)


def _parts(length: int, side: int, overlapping: bool) -> Iterator[tuple[int, int]]:
    """First pixels of the parts of a side, and those after their last."""
    count = max(1, round(length / side))
    steps = 2 if overlapping else 1  # in which a part is passed
    for step in range(steps * (count - 1) + 1):
        yield length * step // (steps * count), length * (step + steps) // (steps * count)


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return areas
