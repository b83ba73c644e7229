"""A detector for images in any form."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.dataset import pseudo_collate

import mpvit.register  # noqa: F401
from mpvit.config.presets import tta_model
from mpvit.engine.build import explained
from mpvit.engine.hooks.prepare_inference import chosen_device
from mpvit.engine.run_errors import explained_faults
from mpvit.errors import UserError, did_you_mean, optional
from mpvit.inference.detections import Detections
from mpvit.inference.images import Pixels, as_pixels
from mpvit.inference.loading import image_pipeline, load_detector
from mpvit.inference.sources import Loader, Source, ahead, loaders
from mpvit.models.runtimes import default_device, is_exported

_LESS_MEMORY = (
    'lower --batch-size, detect in tiles (--tile) or compute in --dtype bf16 (docs/inference.md)'
)
_OVERLAP = 0.2  # of the side of a tile
_SAME = 0.5  # overlap from which two detections of a class in tiles are taken for one object
_Prepared = tuple[Source, Any]  # what the detector is given is None where it sees tiles


class Detector:
    """A trained detector that takes images as they come.

    ``detector(image)`` is for one image, `predict` for many. Images go through the test pipeline of
    the config, so that the detections are those that `mpvit test` evaluates.

    Args:
        config: Config file.
        checkpoint: Checkpoint file or URL.
        device: Where it runs, such as ``'cuda:0'``; None for a GPU where there is one that can run
            the file, else the CPU.
        dtype: This, ``compile`` and ``fold`` are as for `mpvit.inference.loading.load_detector`.
        threshold: Lowest score of a detection, in [0, 1].
        classes: Names of the classes to detect; None for all.
        batch_size: Images, or tiles of one, that the detector sees at once. Those of different size
            are padded to a common one.
        tile: Side of square tiles in pixels, in which each image is looked at; None for images as
            they are. Tiles overlap by a fifth; where detections of one class overlap by more than
            half, the best of them is kept.
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
        self._labels = None
        if classes is not None:
            self._labels = class_labels(classes, self.classes, 'the detector')
        self._pipeline = image_pipeline(cfg, tta)
        self._runnable: Any = MODELS.build(tta_model(cfg, self.model)) if tta else self.model
        self._slicer: Any = None
        if tile is not None:
            self._slicer = optional('supervision', 'tiles').InferenceSlicer(
                self._tiles,
                slice_wh=tile,
                overlap_wh=round(_OVERLAP * tile),
                iou_threshold=_SAME,
                batch_size=batch_size,
            )

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
        with explained_faults(less_memory=self._less_memory), explained(self.model.cfg, 'run'):
            prepared = self._prepared(Source('the image', '', as_pixels(image)))
        ((_, found),) = self._detect([prepared])
        return found

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
        batch: list[_Prepared] = []
        full = 1 if self._slicer else self.batch_size
        for loaded in ahead(self._load, loaders(inputs), depth=2 * full):
            if not isinstance(loaded, UserError):
                batch.append(loaded)
            elif failed is not None:
                failed(loaded)
            else:
                yield from self._detect(batch)
                raise loaded
            if len(batch) == full:
                yield from self._detect(batch)
                batch = []
        yield from self._detect(batch)

    def _load(self, load: Loader) -> _Prepared | UserError:
        try:
            return self._prepared(load())
        except UserError as error:
            return error

    def _prepared(self, source: Source) -> _Prepared:
        return source, None if self._slicer else self._through_pipeline(source.image, source.path)

    def _through_pipeline(self, pixels: Pixels, name: str) -> Any:
        try:
            return self._pipeline(dict(img=pixels, img_id=0))
        except UserError as error:
            raise UserError(f'{name}: {error}') from error

    def _detect(self, batch: Sequence[_Prepared]) -> Iterator[tuple[Source, Detections]]:
        sources = [source for source, _ in batch]
        with explained_faults(less_memory=self._less_memory), explained(self.model.cfg, 'run'):
            if self._slicer:
                found = [self._in_tiles(source.image) for source in sources]
            else:
                found = self._forward([s.image for s in sources], [given for _, given in batch])
        yield from zip(sources, found, strict=True)

    def _forward(self, images: Sequence[Pixels], prepared: Sequence[Any]) -> list[Detections]:
        if not images:
            return []
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

    def _in_tiles(self, pixels: Pixels) -> Detections:
        """Cut by supervision, detect in the tiles, put together by supervision."""
        found = self._slicer(pixels)
        found = found[np.argsort(-found.confidence, kind='stable')] if len(found) else found
        return Detections(
            boxes=np.asarray(found.xyxy, np.float32).reshape(-1, 4),
            scores=np.asarray(found.confidence if len(found) else [], np.float32),
            labels=np.asarray(found.class_id if len(found) else [], np.int64),
            classes=self.classes,
            size=(pixels.shape[1], pixels.shape[0]),
        )

    def _tiles(self, tiles: Any) -> Any:
        """What supervision asks for: a list, or where the batch size is 1 a single tile."""
        images = tiles if isinstance(tiles, list) else [tiles]
        results = []
        for found in self._forward(images, [self._through_pipeline(t, 'a tile') for t in images]):
            # what lies beyond the edge of a tile is for its neighbours to see
            boxes = found.boxes.clip(0, np.tile(found.size, 2))
            results.append(replace(found, boxes=boxes.astype(np.float32)).to_supervision())
        return results if isinstance(tiles, list) else results[0]


def class_labels(wanted: Sequence[str], classes: Sequence[str], holder: str) -> list[int]:
    """Indices of classes by name.

    Raises:
        UserError: The holder of the classes, which it names, has no such class.
    """
    for name in wanted:
        if name not in classes:
            hint = did_you_mean(name, classes) or f'; it has {", ".join(classes)}'
            raise UserError(f'{holder} has no class {name!r}{hint}')
    return [classes.index(name) for name in wanted]
