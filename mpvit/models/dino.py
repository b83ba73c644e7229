"""DINO as published, out of mmdet's parts and those of our Deformable DETR.

Source: "DINO: DETR with Improved DeNoising Anchor Boxes for End-to-End Object Detection" (Zhang et
al., ICLR 2023).
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models import DINO, DINOHead
from mmdet.models.layers import DinoTransformerDecoder, coordinate_to_encoding, inverse_sigmoid
from mmdet.models.layers.transformer import MLP
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from mpvit.models.detector import AnyWidthDeformableDETR
from mpvit.models.head import OfficialDeformableDETRHead, full
from mpvit.models.lean import use_lean_layers
from mpvit.models.matching import Predictions, image_sizes


class PublishedDinoDecoder(DinoTransformerDecoder):
    """DINO's decoder with half the embedding width for each of the four box coordinates.

    So it was published, and so are the checkpoints. onedl-mmdetection 3.5 takes the whole width,
    which makes ``ref_point_head`` twice as wide (its issue 25).
    """

    def _init_layers(self) -> None:
        super()._init_layers()
        self.ref_point_head = MLP(self.embed_dims * 2, self.embed_dims, self.embed_dims, 2)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        valid_ratios: Tensor,
        reg_branches: Sequence[torch.nn.Module],
        **shared: Any,
    ) -> tuple[Tensor, Tensor]:
        """Refine queries and boxes, a layer after the other.

        Args:
            query: Contents of the queries, shape ``(B, queries, channels)``.
            reference_points: Relative boxes ``(cx, cy, w, h)``, shape ``(B, queries, 4)``.
            valid_ratios: Part of each level that is not padding, ``(x, y)``, ``(B, levels, 2)``.
            reg_branches: The box layers of the head, one for each decoder layer.
            **shared: What every layer gets: values, masks, sizes of the levels.

        Returns:
            Outputs of all layers, ``(layers, B, queries, channels)``, and the boxes that they
            start from and end with, ``(layers + 1, B, queries, 4)``. A box takes its gradient
            through the offset of one more layer ("look forward twice").
        """
        outputs, boxes = [], [reference_points]
        ratios = valid_ratios.repeat(1, 1, 2)[:, None]  # (B, 1, levels, 4)
        for layer, box_layer in zip(self.layers, reg_branches, strict=False):
            start = reference_points[:, :, None] * ratios
            encoded = coordinate_to_encoding(start[:, :, 0], num_feats=self.embed_dims // 2)
            query = layer(
                query,
                query_pos=self.ref_point_head(encoded),
                reference_points=start,
                valid_ratios=valid_ratios,
                **shared,
            )
            refined = (box_layer(query) + inverse_sigmoid(reference_points, eps=1e-3)).sigmoid()
            reference_points = refined.detach()
            outputs.append(self.norm(query))
            boxes.append(refined)
        return torch.stack(outputs), torch.stack(boxes)


@MODELS.register_module()
class AnyWidthDINO(AnyWidthDeformableDETR, DINO):
    """mmdet's DINO with the published decoder, cheap memory and mixed precision.

    Names of parameters are mmdet's, and mmdet's published checkpoints fit. Takes mmdet's arguments
    and ``encoder.num_cp`` as `AnyWidthDeformableDETR` does.
    """

    decoder: Any  # mmdet keeps the config here until it builds the layers

    def _init_layers(self) -> None:
        decoder = PublishedDinoDecoder(**self.decoder)
        super()._init_layers()
        self.decoder = decoder
        use_lean_layers(decoder)


@MODELS.register_module()
class OfficialDINOHead(OfficialDeformableDETRHead, DINOHead):
    """mmdet's head of DINO with what `OfficialDeformableDETRHead` adds to the other.

    Losses and names are mmdet's; all layers are computed together, of denoising queries too.
    """

    def loss_by_feat(  # type: ignore[override]
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        enc_cls_scores: Tensor,
        enc_bbox_preds: Tensor,
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        dn_meta: dict[str, int],
        batch_gt_instances_ignore: None = None,
    ) -> dict[str, Tensor]:
        """Losses of every decoder layer, of the proposals, and of the denoising queries.

        Args:
            all_layers_cls_scores: Logits, denoising queries first, shape
                ``(layers, B, queries, classes)``.
            all_layers_bbox_preds: Relative boxes ``(cx, cy, w, h)``, ``(layers, B, queries, 4)``.
            enc_cls_scores: Logits of the chosen proposals, shape ``(B, proposals, classes)``.
            enc_bbox_preds: Their boxes, shape ``(B, proposals, 4)``.
            batch_gt_instances: ``bboxes`` as ``(x1, y1, x2, y2)`` in pixels and ``labels``.
            batch_img_metas: With ``img_shape``, ``(h, w)`` in pixels.
            dn_meta: How many denoising queries and groups of them there are.
            batch_gt_instances_ignore: Has to be None.

        Returns:
            As `OfficialDeformableDETRHead.loss_by_feat`, and those of the denoising queries with
            ``dn_`` before the name of the loss.
        """
        outputs = all_layers_cls_scores, all_layers_bbox_preds
        rest = batch_gt_instances, batch_img_metas
        if isinstance(self.loss_cls, QualityFocalLoss):
            return DINOHead.loss_by_feat(
                self, *outputs, enc_cls_scores, enc_bbox_preds, *rest, dn_meta
            )
        logits, boxes, noisy_logits, noisy_boxes = self.split_outputs(*outputs, dn_meta)
        losses = super().loss_by_feat(
            logits, boxes, enc_cls_scores, enc_bbox_preds, *rest, batch_gt_instances_ignore
        )
        batch = Predictions(full(noisy_logits), full(noisy_boxes), batch_gt_instances)
        pairs = _pairs(batch, dn_meta['num_denoising_groups'])
        terms = self._losses(batch, pairs, image_sizes(batch_img_metas, batch.boxes))
        last = len(noisy_logits) - 1
        for layer in (last, *range(last)):
            place = 'dn_' if layer == last else f'd{layer}.dn_'
            losses.update({place + name: values[layer] for name, values in terms.items()})
        return losses

    def _proposal_targets(self, targets: list[InstanceData]) -> list[InstanceData]:
        """Proposals are scored by class."""
        return targets


def _pairs(batch: Predictions, groups: int) -> Tensor:
    """Denoising queries and the objects that they were made from, as `matching.match` gives pairs.

    Of each group the first half is to find its object, the second half is to find nothing; both
    are as long as the image with the most objects has objects.
    """
    layers, _, queries, _ = batch.boxes.shape
    pairs, first = [], 0
    for image, target in enumerate(batch.targets):
        found = torch.arange(len(target.labels))
        starts = torch.arange(groups)[:, None] * (queries // groups)
        query = (starts + found).flatten()
        objects = (first + found).repeat(groups)
        pairs.append(torch.stack([torch.full_like(query, image), query, objects]))
        first += len(found)
    # (3, pairs) -> (3, layers, pairs)
    together = torch.cat(pairs, dim=1)[:, None].expand(-1, layers, -1)
    return together.to(batch.boxes.device, non_blocking=True)
