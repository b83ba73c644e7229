"""Sizes of images and boxes after resizing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpvit.datasets.check.boxes import BoxFaults, image_sizes, usable
from mpvit.datasets.check.problems import Problem, problem
from mpvit.datasets.check.table import Table

_TINY = 8  # pixels: the finest stride of the detector
_ENLARGED = 3.0
_SHARE = 0.1  # of the boxes, from which on it is worth a warning


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
        """By how much images grow at the greatest scale.

        Args:
            sizes: ``(M, 2)``.

        Returns:
            ``(M,)``.
        """
        factor = self.high / sizes.min(1)
        return factor if self.longest is None else np.minimum(factor, self.longest / sizes.max(1))

    @classmethod
    def of_pipeline(cls, pipeline: Iterable[Any]) -> 'Scales | None':
        """The scales of a pipeline's resizing steps that limit both sides.

        Args:
            pipeline: Transforms as in a config, with those inside other transforms.

        Returns:
            None if there is no such step.
        """
        pairs = [sorted(pair) for pair in _pairs(pipeline)]
        if not pairs:
            return None
        shorts, longs = zip(*pairs, strict=True)
        return cls(min(shorts), max(shorts), max(longs))


def _pairs(node: Any) -> Iterator[Sequence[int]]:
    """Every pair of numbers under ``scale`` or ``scales``, at any depth."""
    if isinstance(node, Mapping):
        scales = [node[key] for key in ('scale', 'scales') if key in node]
        for value in scales:
            yield from _pairs_of(value)
        for key, value in node.items():
            if key not in ('scale', 'scales'):
                yield from _pairs(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _pairs(value)


def _pairs_of(value: Any) -> Iterator[Sequence[int]]:
    if isinstance(value, tuple) and len(value) == 2:
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _pairs_of(item)


def scale_problems(table: Table, faults: BoxFaults, scales: Scales) -> Iterator[Problem]:
    """Boxes and images after resizing.

    Args:
        table: The file.
        faults: Of its boxes.
        scales: How images are resized.
    """
    keep = usable(table, faults) & ~np.isnan(image_sizes(table)[:, 0])
    limit = '' if scales.longest is None else f', long side at most {scales.longest}'
    at = f'at the largest scale (short side {scales.high}{limit})'
    if keep.any():
        boxes = table.boxes[keep, 2:] * scales.factor(image_sizes(table)[keep])[:, None]
        side = np.sqrt(boxes.prod(1))
        groups = np.histogram(side, [0, _TINY, 32, 96, np.inf])[0] / len(side)
        names = (f'under {_TINY} px', f'{_TINY} to 32', '32 to 96', 'over 96')
        shares = ', '.join(f'{share:.0%} {n}' for share, n in zip(groups, names, strict=True))
        yield problem('box-sizes', f'{at}: {shares}', table.file)
        if groups[0] >= _SHARE:
            yield problem('boxes-tiny', f'{groups[0]:.0%} under {_TINY} px {at}', table.file)
    sizes = table.sizes[~np.isnan(table.sizes[:, 0])]
    enlarged = int((scales.factor(sizes) > _ENLARGED).sum()) if len(sizes) else 0
    if enlarged:
        what = f'{enlarged} of {len(sizes)} images are enlarged more than {_ENLARGED:g} times {at}'
        yield problem('images-enlarged', what, table.file)
