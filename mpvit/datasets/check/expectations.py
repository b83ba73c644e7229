"""What a config says that a check of its dataset needs to know."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scales:
    """How images are resized, in pixels.

    Attributes:
        low: Least length of the short side.
        high: Greatest length of the short side.
        longest: Limit of the long side; None for none.
    """

    low: int
    high: int
    longest: int | None = None

    def factor(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much images of the sizes ``(M, 2)`` grow at the greatest scale, ``(M,)``."""
        factor = self.high / sizes.min(1)
        return factor if self.longest is None else np.minimum(factor, self.longest / sizes.max(1))

    @classmethod
    def of_pipeline(cls, pipeline: Iterable[Any]) -> 'Scales | None':
        """The scales of a config's resizing steps that limit both sides; None without any."""
        pairs = [sorted(pair) for pair in _pairs(pipeline)]
        if not pairs:
            return None
        shorts, longs = zip(*pairs, strict=True)
        return cls(min(shorts), max(shorts), max(longs))


def _pairs(node: Any, of_scale: bool = False) -> Iterator[Sequence[int]]:
    """Every pair of numbers under ``scale`` or ``scales``, at any depth."""
    if of_scale and isinstance(node, tuple) and len(node) == 2:
        yield node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _pairs(value, key in ('scale', 'scales'))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _pairs(value, of_scale)


def settings_of(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments ``classes``, ``scales`` and ``exif_turns`` of `check_dataset` by a config.

    Classes are None where the config leaves them to the class of the dataset, scales where no step
    of the pipeline limits both sides.

    Args:
        dataset: A dataset as in a config, such as ``train_dataloader.dataset``, without wrappers.
    """
    classes = (dataset.get('metainfo') or {}).get('classes')
    pipeline = dataset.get('pipeline') or []
    return dict(
        classes=None if classes is None else tuple(classes),
        scales=Scales.of_pipeline(pipeline),
        exif_turns=any(_turns(step) for step in pipeline),
    )


def _turns(step: Mapping[str, Any]) -> bool:
    """Whether a step loads images as their EXIF data turn them, which is mmcv's default."""
    loads = str(step.get('type', '')).startswith('LoadImageFrom')
    return loads and step.get('color_type', 'color') in ('color', 'grayscale')
