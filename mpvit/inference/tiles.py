"""Large images in overlapping tiles, cut and put together by supervision."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mpvit.errors import optional
from mpvit.inference.detections import Detections
from mpvit.inference.images import Pixels

_OVERLAP = 0.2  # of the side of a tile
_SAME = 0.5  # overlap from which two detections of a class are taken for one object


class TiledDetector:
    """Detects in tiles of an image.

    Args:
        detect: Detects in images of any size.
        side: Of the tiles, in pixels.
        batch_size: Tiles that are handed to ``detect`` at once.

    Raises:
        UserError: supervision is not installed.
    """

    def __init__(
        self, detect: Callable[[Sequence[Pixels]], list[Detections]], side: int, batch_size: int
    ) -> None:
        self._detect = detect
        self._slicer = optional('supervision', 'tiles').InferenceSlicer(
            self._in_tiles,
            slice_wh=side,
            overlap_wh=round(_OVERLAP * side),
            iou_threshold=_SAME,
            batch_size=batch_size,
        )

    def __call__(self, pixels: Pixels, classes: tuple[str, ...]) -> Detections:
        """Detect in one image.

        Args:
            pixels: RGB, ``(H, W, 3)``.
            classes: Names by label.

        Returns:
            What was found in all tiles; where detections of one class overlap by more than half,
            the best of them.
        """
        found = self._slicer(pixels)
        found = found[np.argsort(-found.confidence, kind='stable')] if len(found) else found
        return Detections(
            boxes=np.asarray(found.xyxy, np.float32).reshape(-1, 4),
            scores=np.asarray(found.confidence if len(found) else [], np.float32),
            labels=np.asarray(found.class_id if len(found) else [], np.int64),
            classes=classes,
            size=(pixels.shape[1], pixels.shape[0]),
        )

    def _in_tiles(self, tiles: Any) -> Any:
        """What supervision asks for: a list, or where the batch size is 1 a single tile."""
        several = isinstance(tiles, list)
        results = []
        for found in self._detect(tiles if several else [tiles]):
            # what lies beyond the edge of a tile is for its neighbours to see
            boxes = found.boxes.clip(0, np.tile(found.size, 2))
            results.append(replace(found, boxes=boxes.astype(np.float32)).to_supervision())
        return results if several else results[0]
