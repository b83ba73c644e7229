"""Matching of predictions and objects: all decoder layers and images with one transfer to the host.

mmdet's assigner is called for every layer and image and waits for the device each time. Here the
costs of a whole batch, by the same cost functions, go to the host together. mmdet's GIoU, which
brings its epsilon to the device, is left as it is: a short wait for every image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from mmdet.models.task_modules.assigners import BBoxL1Cost
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert

MatchCost = Callable[..., Tensor]


@TASK_UTILS.register_module()
class BroadcastL1Cost(BBoxL1Cost):
    """mmdet's `BBoxL1Cost`, bit for bit, without ``torch.cdist(p=1)``.

    On GPUs `torch.cdist` starts a block of threads for every single pair. On a CPU it is as fast
    as this.
    """

    def __call__(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict[str, Any],
        **kwargs: Any,
    ) -> Tensor:
        """L1 distance of relative boxes.

        Args:
            pred_instances: ``bboxes`` as ``(x1, y1, x2, y2)`` in pixels, shape ``(N, 4)``.
            gt_instances: ``bboxes`` likewise, shape ``(M, 4)``.
            img_meta: ``img_shape``, ``(h, w)`` in pixels.
            **kwargs: Ignored, as by mmdet's costs.

        Returns:
            Cost of shape ``(N, M)``.
        """
        height, width = img_meta['img_shape'][:2]
        sides = []
        for instances in (pred_instances, gt_instances):
            boxes = instances.bboxes.detach()
            if self.box_format == 'xywh':
                boxes = box_convert(boxes, 'xyxy', 'cxcywh')
            scale = boxes.new_full((4,), height)  # filled there: a copy would wait
            scale[::2].fill_(width)
            boxes = boxes / scale
            sides.append(boxes.t().contiguous())
        # one coordinate at a time and in place: nothing of shape (N, M, 4) is stored
        distances = (
            (predicted[:, None] - true).abs_() for predicted, true in zip(*sides, strict=True)
        )
        return reduce(Tensor.add_, distances) * self.weight


@dataclass
class Predictions:
    """Predictions of some layers, and what they are matched with.

    Attributes:
        logits: Shape ``(layers, B, queries, classes)``.
        boxes: Relative ``(cx, cy, w, h)``, shape ``(layers, B, queries, 4)``.
        targets: ``bboxes`` in pixels and ``labels`` of every image.
    """

    logits: Tensor
    boxes: Tensor
    targets: Sequence[InstanceData]


def image_sizes(metas: Sequence[dict[str, Any]], like: Tensor) -> Tensor:
    """``(w, h, w, h)`` of every image in pixels, shape ``(B, 4)``, of the type of ``like``."""
    shapes = [meta['img_shape'][:2] for meta in metas]
    sizes = torch.tensor([[w, h, w, h] for h, w in shapes], dtype=like.dtype)
    return sizes.to(like.device, non_blocking=True)  # `new_tensor` would wait


@torch.no_grad()
def match(
    costs: Sequence[MatchCost],
    batches: Sequence[Predictions],
    metas: Sequence[dict[str, Any]],
    sizes: Tensor,
) -> list[Tensor]:
    """Match the predictions of every layer one to one with the objects of their image.

    Args:
        costs: Cost functions of an assigner, summed.
        batches: What to match.
        metas: Of the images.
        sizes: Of the images, as `image_sizes` gives them.

    Returns:
        For each of ``batches`` the pairs of every layer as ``(image, query, object)``, shape
        ``(3, layers, pairs)``; objects are counted through all images. Sorted by image and query.
    """
    matrices = [_cost_matrices(costs, batch, metas, sizes) for batch in batches]
    flat = torch.cat([matrix.flatten() for per_image in matrices for matrix in per_image])
    on_host = flat.cpu()  # the only point where the host has to wait for the device
    pieces = iter(on_host.split([m.numel() for per_image in matrices for m in per_image]))
    pairs = [_pairs([next(pieces).view(m.shape) for m in per_image]) for per_image in matrices]
    # back in one transfer as well
    moved = torch.cat([p.flatten() for p in pairs]).to(flat.device, non_blocking=True)
    return [
        piece.view(p.shape)
        for piece, p in zip(moved.split([p.numel() for p in pairs]), pairs, strict=True)
    ]


def _cost_matrices(
    costs: Sequence[MatchCost],
    batch: Predictions,
    metas: Sequence[dict[str, Any]],
    sizes: Tensor,
) -> list[Tensor]:
    """Costs of every image, shape ``(layers, queries, objects)``."""
    layers, _, queries, _ = batch.boxes.shape
    boxes = box_convert(batch.boxes, 'cxcywh', 'xyxy') * sizes[None, :, None]
    matrices = []
    for index, (target, meta) in enumerate(zip(batch.targets, metas, strict=True)):
        if len(target.bboxes) == 0:
            matrices.append(boxes.new_zeros(layers, queries, 0))
            continue
        # a row depends on its own prediction only, so all layers make one call
        predictions = InstanceData(
            scores=batch.logits[:, index].flatten(0, 1), bboxes=boxes[:, index].flatten(0, 1)
        )
        terms = [
            cost(pred_instances=predictions, gt_instances=target, img_meta=meta) for cost in costs
        ]
        matrices.append(torch.stack(terms).sum(dim=0).view(layers, queries, -1))
    return matrices


def _pairs(matrices: Sequence[Tensor]) -> Tensor:
    # The solver refuses NaN and infinity. Any pairs do then: the losses are not finite either way,
    # and what follows from that is decided for all processes together
    # (mpvit.engine.hooks.finite_steps).
    matrices = [matrix.nan_to_num(0.0, 0.0, 0.0) for matrix in matrices]
    layers = []
    for layer in range(len(matrices[0])):
        first, found = 0, []
        for index, matrix in enumerate(matrices):
            queries, objects = map(torch.from_numpy, linear_sum_assignment(matrix[layer].numpy()))
            found.append(torch.stack([torch.full_like(queries, index), queries, objects + first]))
            first += matrix.shape[-1]
        layers.append(torch.cat(found, dim=1))
    return torch.stack(layers, dim=1)
