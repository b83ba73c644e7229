"""A detector for images in any form."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.dataset import pseudo_collate

from mpvit.config.tta import tta_model
from mpvit.engine.device import chosen_device
from mpvit.engine.run_errors import explained_faults
from mpvit.errors import UserError, closest
from mpvit.inference.detections import Detections
from mpvit.inference.images import Pixels, as_pixels
from mpvit.inference.loading import load_detector
from mpvit.inference.pipeline import array_pipeline
from mpvit.inference.sources import Loader, Source, ahead, as_list, loaders
from mpvit.inference.tiles import TiledDetector
from mpvit.models.exported import default_device, is_exported

_LESS_MEMORY = (
    'lower --batch-size, detect in tiles (--tile) or compute in --dtype bf16 (docs/inference.md)'
)


class Detector:
    """A trained detector that takes images as they come.

    ``detector(image)`` is for one image, `predict` for many. Images go through the test pipeline of
    the config, so that the detections are those that `tools/test.py` evaluates.

    Args:
        config: Config file.
        checkpoint: Checkpoint file or URL.
        device: Where it runs, such as ``'cuda:0'``; None for a GPU where there is one that can run
            the file, else the CPU.
        dtype: As for `mpvit.inference.load_detector`.
        compile: As for `mpvit.inference.load_detector`.
        fold: As for `mpvit.inference.load_detector`.
        threshold: Lowest score of a detection, in [0, 1].
        classes: Names of the classes to detect; None for all.
        batch_size: Images, or tiles of one, that the detector sees at once. Those of different size
            are padded to a common one.
        tile: Side of square tiles in pixels, in which each image is looked at; None for images as
            they are. Tiles overlap by a fifth.
        tta: Average over the image and its mirror image.
        less_memory: What errors say of how to get by with less memory.

    Attributes:
        model: The detector, for mmdet's own functions.
        threshold: May be changed at any time.
        classes: Names of all its classes.

    Raises:
        UserError: Config, checkpoint, device or one of the settings is wrong.
    """

    def __init__(
        self,
        config: str | os.PathLike[str],
        checkpoint: str | os.PathLike[str],
        device: str | None = None,
        *,
        dtype: str = 'fp32',
        compile: bool = False,
        fold: bool = True,
        threshold: float = 0.3,
        classes: Sequence[str] | None = None,
        batch_size: int = 1,
        tile: int | None = None,
        tta: bool = False,
        less_memory: str = _LESS_MEMORY,
    ) -> None:
        for name, value, fits in (
            ('threshold', threshold, 0 <= threshold <= 1),
            ('batch size', batch_size, batch_size >= 1),
            ('tile', tile, tile is None or tile >= 32),
        ):
            if not fits:
                raise UserError(f'{name} {value} is out of range')
        if device is None and is_exported(checkpoint):
            device = default_device(checkpoint)
        device = chosen_device(device)
        self._less_memory = less_memory
        with explained_faults(less_memory=less_memory):
            self.model = load_detector(
                config, checkpoint, device, dtype=dtype, compile=compile, fold=fold
            )
        cfg: Any = self.model.cfg
        meta: Any = self.model.dataset_meta
        self.classes: tuple[str, ...] = tuple(meta['classes'])
        self.threshold, self.batch_size = threshold, batch_size
        self._labels = None if classes is None else _labels(classes, self.classes)
        self._pipeline = array_pipeline(cfg, tta)
        self._runnable: Any = MODELS.build(tta_model(cfg, self.model)) if tta else self.model
        self._tiled = None if tile is None else TiledDetector(self._plain, tile, batch_size)

    def __call__(self, image: Any) -> Detections:
        """Detect in one image.

        Args:
            image: A path or URL; a Pillow image; a numpy array ``(H, W)`` or ``(H, W, C)``, BGR; or
                a tensor ``(C, H, W)``, RGB. See `mpvit.inference.images.as_pixels`.

        Returns:
            What was found, in pixels of the image as shown.

        Raises:
            UserError: The image cannot be read, or memory is full.
        """
        pixels = as_pixels(image)
        return self._detect([pixels])[0]

    def predict(
        self, inputs: Any, failed: Callable[[UserError], object] | None = None
    ) -> Iterator[tuple[Source, Detections]]:
        """Detect in many images, in constant memory however many there are.

        The next images are read while the detector computes.

        Args:
            inputs: One or several of: what a call takes; folders; patterns such as ``'*.jpg'``;
                videos. See `mpvit.inference.inputs.find`.
            failed: Is given the error of each input that cannot be read, which is then left out;
                None to raise it.

        Yields:
            Each image with where it came from, and what was found in it, in order.

        Raises:
            UserError: An input stands for nothing or cannot be read, or memory is full.
        """
        batch: list[tuple[Source, Any]] = []
        full = 1 if self._tiled else self.batch_size
        for result in ahead(self._load, loaders(as_list(inputs)), depth=2 * full):
            if not isinstance(result, UserError):
                batch.append(result)
            elif failed is not None:
                failed(result)
            else:
                yield from self._flush(batch)
                raise result
            if len(batch) == full:
                yield from self._flush(batch)
        yield from self._flush(batch)

    def _load(self, load: Loader) -> tuple[Source, Any] | UserError:
        try:
            source = load()
            return source, None if self._tiled else self._prepared(source.image, source.path)
        except UserError as error:
            return error

    def _flush(self, batch: list[tuple[Source, Any]]) -> Iterator[tuple[Source, Detections]]:
        if batch:
            sources, prepared = zip(*batch, strict=True)
            batch.clear()
            found = self._detect([source.image for source in sources], prepared)
            yield from zip(sources, found, strict=True)

    def _detect(
        self, images: Sequence[Pixels], prepared: Sequence[Any] | None = None
    ) -> list[Detections]:
        with explained_faults(less_memory=self._less_memory):
            if self._tiled is not None:
                return [self._tiled(pixels, self.classes) for pixels in images]
            return self._plain(images, prepared)

    def _prepared(self, pixels: Pixels, name: str = 'the image') -> Any:
        try:
            return self._pipeline(dict(img=pixels[..., ::-1], img_id=0))
        except (ValueError, RuntimeError, ArithmeticError) as error:  # such as a line of one pixel
            size = f'{pixels.shape[1]} x {pixels.shape[0]} pixels'
            raise UserError(
                f'{name} of {size} does not go through the test pipeline: {error}'
            ) from error

    def _plain(
        self, images: Sequence[Pixels], prepared: Sequence[Any] | None = None
    ) -> list[Detections]:
        if prepared is None:
            prepared = [self._prepared(pixels) for pixels in images]
        with torch.no_grad():
            samples = self._runnable.test_step(pseudo_collate(prepared))
        return [
            self._chosen(pixels, sample.pred_instances.cpu())
            for pixels, sample in zip(images, samples, strict=True)
        ]

    def _chosen(self, pixels: Pixels, found: Any) -> Detections:
        queries = found.get('queries')
        every = Detections(
            boxes=found.bboxes.float().numpy(),
            scores=found.scores.float().numpy(),
            labels=found.labels.long().numpy(),
            classes=self.classes,
            size=(pixels.shape[1], pixels.shape[0]),
            queries=None if queries is None else queries.long().numpy(),
        )
        chosen = every.scores >= self.threshold
        if self._labels is not None:
            chosen &= np.isin(every.labels, self._labels)
        return every[chosen]


def _labels(wanted: Sequence[str], classes: Sequence[str]) -> list[int]:
    for name in wanted:
        if name not in classes:
            lower = {known.lower(): known for known in classes}
            close = closest(name.lower(), lower)
            hint = f'did you mean {lower[close]!r}?' if close else ', '.join(classes)
            raise UserError(f'the detector has no class {name!r}; {hint}')
    return [classes.index(name) for name in wanted]
