"""The detectors behind the page: loaded when first used, one image at a time."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

import mpvit.register  # noqa: F401
from mpvit.app.sources import Source
from mpvit.engine.run_errors import explained_faults
from mpvit.errors import UserError
from mpvit.inference import Detections, Detector
from mpvit.inference.queries import SamplingPoints, record

#: Scores below are not kept: a detector gives hundreds, and nobody looks at them.
LOWEST_SCORE = 0.05
_KEPT = 2  # detectors in memory
_LESS_MEMORY = 'use a smaller picture, or start the page with --device cpu'


class Detectors:
    """The detectors that the page offers; threads wait for each other.

    Every method raises `UserError` if there is no detector of the name, it cannot be loaded or
    memory runs out. The device is as for `Detector`.
    """

    def __init__(self, sources: Sequence[Source], device: str | None = None) -> None:
        self.sources = {source.name: source for source in sources}
        self._device = device
        self._kept: OrderedDict[tuple[str, int], Detector] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, name: str) -> None:
        """Load a detector before it is needed."""
        with self._loaded(name):
            pass

    def detect(self, name: str, picture: Image.Image) -> tuple[Detections, int]:
        """Find objects.

        Returns:
            Detections with scores of at least `LOWEST_SCORE`, and how many decoder layers can be
            looked into: 0 where it is not known which query found what.
        """
        with self._loaded(name) as detector:
            found = detector(picture)
            layers = getattr(getattr(detector.model, 'decoder', None), 'layers', ())
        return found, len(layers) if found.queries is not None else 0

    def look(self, name: str, picture: Image.Image, layer: int) -> SamplingPoints:
        """Record what a decoder layer, counted from 0, samples of a picture.

        Raises:
            UserError: The detector has no such layer.
        """
        with self._loaded(name) as detector:
            return record(detector.model, picture, layer)

    @contextmanager
    def _loaded(self, name: str) -> Iterator[Detector]:
        """A detector, for one thread at a time."""
        source = self.sources.get(name)
        if source is None:
            raise UserError(f'there is no checkpoint {name!r}; choose one of the list')
        with self._lock, explained_faults(less_memory=_LESS_MEMORY):
            key = (name, _written(source))
            if key not in self._kept:
                while len(self._kept) >= _KEPT:
                    self._kept.popitem(last=False)
                self._kept[key] = Detector(
                    source.config,
                    source.checkpoint,
                    self._device,
                    threshold=LOWEST_SCORE,
                    less_memory=_LESS_MEMORY,
                )
            self._kept.move_to_end(key)
            yield self._kept[key]


def _written(source: Source) -> int:
    """When a checkpoint was written: a training may write another of the same name."""
    if '://' in source.checkpoint:
        return 0
    try:
        return Path(source.checkpoint).stat().st_mtime_ns
    except OSError as error:
        raise UserError(f'checkpoint {source.name} is not there; choose another') from error
