"""Comparing an exported detector with the one in PyTorch, both as a user runs them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from mpvit.errors import UserError
from mpvit.models.exported import ExportedDetector, padded

#: By precision: largest allowed difference of boxes, relative to the longer side of the image, and
#: of scores, and the share of detections that may have no counterpart.
TOLERANCES = {'fp32': (1e-4, 1e-4, 0.01), 'fp16': (1e-2, 1e-2, 0.1)}
# Heights and widths of the images of each batch. The first is 50 wide on a map of stride 8, where
# centres of proposals lie just on the border that mmdet excludes.
_BATCHES: tuple[tuple[tuple[int, int], ...], ...] = (
    ((128, 400),),
    ((256, 192),),
    ((227, 161), (128, 240)),
    ((96, 224), (224, 96), (160, 130)),
)


@dataclass(frozen=True)
class Differences:
    """Between detections of two detectors on the same images.

    Attributes:
        boxes: Largest difference of a coordinate, in pixels.
        scores: Largest difference of a score.
        lost: Share of the detections without a counterpart.
        images: Images compared.
        batches: Batches compared.
    """

    boxes: float
    scores: float
    lost: float
    images: int
    batches: int

    def __str__(self) -> str:
        """In one line."""
        lost = f'; {self.lost:.1%} of the detections have no counterpart' if self.lost else ''
        return (
            f'largest difference from PyTorch over {self.images} images in {self.batches} batches: '
            f'boxes {self.boxes:.1e} px, scores {self.scores:.1e}{lost}'
        )


def verify(reference: nn.Module, exported: ExportedDetector, dtype: str = 'fp32') -> Differences:
    """Compare a detector in float32 with itself as exported in a precision (`TOLERANCES`).

    On images of several sizes, alone and in padded batches.

    Raises:
        UserError: They differ by more than the tolerance.
    """
    batch, _, height, width = exported.network.shape
    box, score, share = TOLERANCES[dtype]
    found = []
    size = (height, width) if height and width else None
    for images in _batches(batch, size):
        one = size or _common_size(images, exported.network.multiple)
        results = [detected(model, images, one) for model in (reference, exported)]
        for image, expected, actual in zip(images, *results, strict=True):
            found.append(differences(expected, actual, box * max(image.shape), score))
    largest = Differences(
        boxes=max(item[0] for item in found),
        scores=max(item[1] for item in found),
        lost=sum(item[2] for item in found) / sum(item[3] for item in found),
        images=len(found),
        batches=len(_BATCHES),
    )
    if largest.lost > share:
        raise UserError(
            f'the exported detector deviates from PyTorch: {largest.lost:.1%} of its detections '
            f'have no counterpart within {box:g} of the image and {score:g} of the score; nothing '
            'was written. Try the other --attention, and see "If the comparison fails" in '
            'docs/export.md'
        )
    return largest


def _common_size(images: Sequence[Tensor], multiple: int) -> tuple[int, int] | None:
    """To pad a batch to for a file that takes multiples only; None for one that takes any size."""
    sides = zip(*(image.shape[1:] for image in images), strict=True)
    return padded([max(lengths) for lengths in sides], multiple) if multiple > 1 else None


def differences(
    expected: InstanceData, actual: InstanceData, box: float, score: float
) -> tuple[float, float, int, int]:
    """Compare the detections of one image, whatever their order.

    Detections are paired within classes, so that neither equal scores nor the cut after the best
    hundred make a difference where there is none.

    Args:
        expected: ``bboxes``, ``scores``, ``labels``.
        actual: The same of the other detector.
        box: Largest difference of a coordinate in pixels up to which they are the same.
        score: The same for scores.

    Returns:
        Largest differences of boxes and scores of the pairs, how many detections have no
        counterpart, and how many there are.
    """
    boxes = (expected.bboxes[:, None] - actual.bboxes).abs().amax(-1).numpy()
    scores = (expected.scores[:, None] - actual.scores).abs().numpy()
    same = (expected.labels[:, None] == actual.labels).numpy() & (boxes <= box) & (scores <= score)
    pairs = linear_sum_assignment(np.where(same, boxes / box + scores / score, 1e4))
    hits = same[pairs]
    largest = [float(values[pairs][hits].max(initial=0)) for values in (boxes, scores)]
    count = max(same.shape)
    return largest[0], largest[1], count - int(hits.sum()), count


def _batches(batch: int | None, size: tuple[int, int] | None) -> Iterator[list[Tensor]]:
    """Images as a pipeline gives them."""
    generator = torch.Generator().manual_seed(0)
    for shapes in _BATCHES:
        if size is not None:  # up to the whole of it
            highest, widest = (max(lengths) for lengths in zip(*shapes, strict=True))
            shapes = tuple((h * size[0] // highest, w * size[1] // widest) for h, w in shapes)
        if batch is not None:
            shapes = tuple(shapes[index % len(shapes)] for index in range(batch))
        yield [picture(shape, generator) for shape in shapes]


def picture(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Smooth noise with some rectangles, uint8 ``(3, H, W)``."""
    coarse = torch.randn(1, 3, size[0] // 16 + 2, size[1] // 16 + 2, generator=generator)
    image = F.interpolate(coarse, size, mode='bicubic')[0] * 60 + 128
    for _ in range(4):
        top, left = (int(torch.randint(n // 2, (1,), generator=generator)) for n in size)
        colour = torch.randint(256, (3, 1, 1), generator=generator)
        image[:, top : top + size[0] // 4, left : left + size[1] // 4] = colour
    return image.clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def detected(model: Any, images: list[Tensor], size: tuple[int, int] | None) -> list[InstanceData]:
    """Detections of images.

    Args:
        model: Detector of mmdet, or an exported one.
        images: uint8 ``(3, H, W)`` as a test pipeline gives them; a batch.
        size: Height and width to pad to; None for what the detector does by itself.

    Returns:
        ``bboxes`` in pixels of the images, ``scores`` and ``labels`` of each.
    """
    samples = []
    for image in images:
        shape = tuple(image.shape[1:])
        metas = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
        samples.append(DetDataSample(metainfo=metas))
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), False)
    inputs = data['inputs']
    if size is not None:
        inputs = F.pad(inputs, (0, size[1] - inputs.shape[3], 0, size[0] - inputs.shape[2]))
        for sample in data['data_samples']:  # the preprocessor copies them
            sample.set_metainfo(dict(batch_input_shape=size))
    return [result.pred_instances for result in model.predict(inputs, data['data_samples'])]
