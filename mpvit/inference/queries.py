"""What a decoder layer looks at: the sampling points of its queries, recorded."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.apis import inference_detector
from mmdet.structures import DetDataSample
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mpvit.errors import UserError
from mpvit.inference.detections import Detections
from mpvit.inference.images import as_pixels
from mpvit.inference.loading import image_pipeline
from mpvit.ops.msda.module import sampling_locations

Picture = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image


@dataclass(frozen=True, kw_only=True)
class SamplingPoints(Detections):
    """Where one decoder layer samples the image, for every query, and what was detected.

    Pixels are the detector's own: its boxes and reference points lie in the same ones. Where an
    image is padded, the detector takes the last cell of a level for a whole one, so that the
    samples of a coarse level in a small image can be off by a part of a cell.

    Attributes:
        layer: Which decoder layer, from 0.
        locations: ``(x, y)`` in pixels of the image, shape ``(queries, heads, levels, points, 2)``.
            Samples may lie outside of the image, where they give nothing.
        weights: Attention weights, shape ``(queries, heads, levels, points)``; those of a head add
            up to 1.
        references: What the layer starts from, in pixels of the image: points ``(x, y)`` or boxes
            ``(cx, cy, w, h)``, shape ``(queries, 2 or 4)``.
        strides: Pixels of the image, as given, between two positions of each level.
        queries: Which query each detection comes from, shape ``(N,)``.
    """

    layer: int
    locations: NDArray[np.float32]
    weights: NDArray[np.float32]
    references: NDArray[np.float32]
    strides: tuple[float, ...]
    queries: NDArray[np.int64]

    def samples(self, query: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """What a query samples, the weakest first.

        Returns:
            Weights in parts of the largest one, shape ``(K,)``; levels; locations, ``(K, 2)``.
        """
        weights = self.weights[query] / self.weights[query].max()
        order = weights.argsort(axis=None)
        levels = np.broadcast_to(np.arange(weights.shape[1])[:, None], weights.shape).ravel()
        return weights.ravel()[order], levels[order], self.locations[query].reshape(-1, 2)[order]

    def name(self, detection: int) -> str:
        """Class and score of a detection, as it is written beside its box."""
        label = int(self.labels[detection])
        name = self.classes[label] if label < len(self.classes) else f'class {label}'
        return f'{name} {self.scores[detection]:.2f}'


def record(model: nn.Module, image: Picture, layer: int = -1) -> SamplingPoints:
    """Run a detector on an image and keep what one decoder layer samples.

    Results are those of the detector alone, and nothing stays in it. Other threads may use it
    meanwhile. A compiled detector runs without its compiled code.

    Args:
        model: As `mpvit.inference.loading.load_detector` gives it, prepared in any way.
        image: File, an array ``(H, W, 3)`` in BGR, which is mmdet's order, or a picture of Pillow.
            Files and pictures are turned upright first, as their EXIF data says.
        layer: Which decoder layer; -1 is the last one, whose output the detections are.

    Raises:
        UserError: The image cannot be read, there is no such layer, or the detector's head does
            not say which query a detection comes from.
    """
    layers = getattr(getattr(model, 'decoder', None), 'layers', None)
    if layers is None or not hasattr(layers[-1].cross_attn, 'sampling_offsets'):
        kind = type(model).__name__
        raise UserError(f'{kind} has no decoder that can be looked into; name a checkpoint')
    if not -len(layers) <= layer < len(layers):
        raise UserError(f'layer {layer}: the decoder has layers 0 to {len(layers) - 1}')
    layer %= len(layers)
    cfg: Any = model.cfg
    meta: Any = model.dataset_meta
    stance: Any = getattr(torch.compiler, 'set_stance', None)  # torch 2.6
    with (
        _recorded(layers[layer].cross_attn) as seen,
        stance('force_eager') if stance else nullcontext(),
    ):
        # its own pipeline for arrays would be written into the config
        sample = inference_detector(model, as_pixels(image), image_pipeline(cfg))
    if 'offsets' not in seen:
        raise UserError('this torch runs compiled code only; load the detector without compile')
    return _in_pixels(seen, sample, meta.get('classes') or (), layer)


@contextmanager
def _recorded(attention: Any) -> Iterator[dict[str, Tensor]]:
    """While it lasts, keep what this thread's calls compute inside a deformable attention."""
    seen: dict[str, Tensor] = {}
    thread = threading.get_ident()

    def keep(**tensors: Tensor) -> None:
        if threading.get_ident() == thread:
            seen.update(tensors)

    handles = [
        attention.register_forward_pre_hook(
            lambda module, args, kwargs: keep(
                references=kwargs['reference_points'],
                shapes=kwargs['spatial_shapes'],
                ratios=kwargs['valid_ratios'],
            ),
            with_kwargs=True,
        ),
        attention.sampling_offsets.register_forward_hook(
            lambda module, args, output: keep(
                offsets=output.unflatten(-1, (*_grid(attention), 2)),
            )
        ),
        attention.attention_weights.register_forward_hook(
            lambda module, args, output: keep(
                weights=output.unflatten(-1, (attention.num_heads, -1))
                .softmax(-1)
                .unflatten(-1, _grid(attention)[1:])
            )
        ),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _grid(attention: Any) -> tuple[int, int, int]:
    return attention.num_heads, attention.num_levels, attention.num_points


def _in_pixels(
    seen: dict[str, Tensor], sample: DetDataSample, classes: Sequence[str], layer: int
) -> SamplingPoints:
    """Undo the padding and the resizing that the detector's coordinates refer to."""
    found = sample.pred_instances
    if 'queries' not in found:
        raise UserError(
            'the head does not say which query a detection comes from; '
            'use type="OfficialDeformableDETRHead", or "OfficialDINOHead" for DINO'
        )
    height, width = sample.ori_shape[:2]
    image = seen['references'].new_tensor([width, height])
    ratios = seen['ratios'][0]  # (levels, 2): the part of each level that is not padding
    locations = sampling_locations(seen['references'], seen['offsets'], seen['shapes'])[0]
    references = seen['references'][0, :, 0]
    references = (references.unflatten(-1, (-1, 2)) / ratios[0] * image).flatten(-2)
    columns = seen['shapes'][:, 1] * ratios[:, 0]
    return SamplingPoints(
        layer=layer,
        locations=_array(locations / ratios[:, None] * image),
        weights=_array(seen['weights'][0]),
        references=_array(references),
        strides=tuple((width / columns).tolist()),
        boxes=_array(found.bboxes),
        scores=_array(found.scores),
        labels=found.labels.cpu().numpy(),
        queries=found.queries.cpu().numpy(),
        classes=tuple(classes),
        size=(width, height),
    )


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()
