"""What a detector found in an image."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpvit.errors import optional


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best first.

    Attributes:
        boxes: ``(N, 4)``, ``x1, y1, x2, y2`` in pixels of the image as shown. They may go a little
            beyond its edges, as in the official evaluation.
        scores: ``(N,)``, in [0, 1].
        labels: ``(N,)``, index into ``classes``.
        classes: Names by label.
        size: Width and height of the image in pixels.
        queries: ``(N,)``, decoder query of each detection; None where it is not known, as with
            tiles or test-time augmentation.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    size: tuple[int, int]
    queries: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)

    def __getitem__(self, index: Any) -> 'Detections':
        """Some of the detections: a slice, a mask or indices, as numpy takes them."""
        return replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            labels=self.labels[index],
            queries=None if self.queries is None else self.queries[index],
        )

    @property
    def names(self) -> list[str]:
        """Name of the class of each detection."""
        return [self.classes[label] for label in self.labels]

    def to_supervision(self) -> Any:
        """As ``supervision.Detections``, for its annotators, trackers and counters.

        Raises:
            UserError: supervision is not installed.
        """
        library = optional('supervision', 'annotated pictures and tiles')
        return library.Detections(
            xyxy=self.boxes.reshape(-1, 4),
            confidence=self.scores,
            class_id=self.labels,
            data={'class_name': np.array(self.names, dtype=str)},
        )
