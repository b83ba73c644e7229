"""What a config says that a check of its dataset needs to know."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

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


class Settings(TypedDict):
    """Arguments of `check_dataset`."""

    classes: tuple[str, ...] | None
    scales: Scales | None
    exif_turns: bool


def settings_of(dataset: Mapping[str, Any]) -> Settings:
    """Take the settings from the config of a dataset.

    Args:
        dataset: A dataset as in a config, such as ``train_dataloader.dataset``, without wrappers.

    Returns:
        Arguments of `check_dataset`. Classes are None where the config leaves them to the class
        of the dataset, scales where no step of the pipeline limits both sides.
    """
    classes = (dataset.get('metainfo') or {}).get('classes')
    pipeline = dataset.get('pipeline') or []
    return Settings(
        classes=None if classes is None else tuple(classes),
        scales=Scales.of_pipeline(pipeline),
        exif_turns=any(_turns(step) for step in pipeline),
    )


def _turns(step: Mapping[str, Any]) -> bool:
    """Whether a step loads images as their EXIF data turn them, which is mmcv's default."""
    loads = str(step.get('type', '')).startswith('LoadImageFrom')
    return loads and step.get('color_type', 'color') in ('color', 'grayscale')
