"""What a config says that a check of its dataset needs to know."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_PIXELS = 178_956_970  # of an image after resizing; half a gigabyte, several times in memory
#: Where nothing limits the long side, the official augmentation makes the short one this long.
_UNLIMITED = 600


@dataclass(frozen=True)
class Scales:
    """How images are resized, in pixels.

    Attributes:
        low: Least length of the short side.
        high: Greatest length of the short side.
        longest: Limit of the long side; None for none.
        unlimited: Greatest length of the short side where nothing limits the long one; None where
            something always does.
        tightest: Least limit of the long side; None for `longest`.
    """

    low: int
    high: int
    longest: int | None = None
    unlimited: int | None = None
    tightest: int | None = None

    @property
    def widest(self) -> float:
        """How many times longer one side of an image may be than the other.

        Beyond that the shorter one is rounded to nothing where the longer one is limited, and the
        image gets too large where it is not.
        """
        limit = self.tightest or self.longest
        short = self.unlimited or (self.high if limit is None else None)
        area = np.inf if short is None else _MOST_PIXELS / short**2
        return float(min(area, np.inf if limit is None else 2 * limit))

    def factor(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much images of the sizes ``(M, 2)`` grow at the greatest scale, ``(M,)``."""
        factor = self.high / sizes.min(1)
        return factor if self.longest is None else np.minimum(factor, self.longest / sizes.max(1))

    @classmethod
    def of_pipeline(cls, pipeline: Iterable[Any]) -> 'Scales | None':
        """The scales of a config's resizing steps that limit both sides; None without any."""
        found = list(_scales(pipeline))
        pairs = [sorted(scale) for scale in found if isinstance(scale, tuple)]
        if not pairs:
            return None
        shorts, longs = zip(*pairs, strict=True)
        alone = [scale for scale in found if isinstance(scale, int)]
        return cls(min(shorts), max(shorts), max(longs), max(alone, default=None), min(longs))


#: Those of the official augmentation, which a dataset gets where no config says anything else.
OFFICIAL = Scales(480, 800, 1333, _UNLIMITED)


def _scales(node: Any, of_scale: bool = False) -> Iterator[Any]:
    """Every pair of numbers and every integer under ``scale`` or ``scales``, at any depth."""
    if of_scale and (type(node) is int or _is_pair(node)):
        yield node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _scales(value, key in ('scale', 'scales'))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _scales(value, of_scale)


def _is_pair(node: Any) -> bool:
    return (
        isinstance(node, tuple) and [isinstance(side, int | float) for side in node] == [True] * 2
    )


def settings_of(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `check_dataset` that a config has: classes, filter, scales, EXIF.

    Classes are None where the config leaves them to the class of the dataset, scales where no step
    of the pipeline limits both sides.

    Args:
        dataset: A dataset as in a config, such as ``train_dataloader.dataset``, without wrappers.
    """
    classes = (dataset.get('metainfo') or {}).get('classes')
    pipeline = dataset.get('pipeline') or []
    return dict(
        classes=None if classes is None else tuple(classes),
        filter_cfg=dataset.get('filter_cfg'),
        scales=Scales.of_pipeline(pipeline),
        exif_turns=any(_turns(step) for step in pipeline),
    )


def _turns(step: Mapping[str, Any]) -> bool:
    """Whether a step loads images as their EXIF data turn them, which is mmcv's default."""
    loads = str(step.get('type', '')).startswith('LoadImageFrom')
    return loads and step.get('color_type', 'color') in ('color', 'grayscale')
