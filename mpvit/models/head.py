"""The detection head: losses of all decoder layers at once, and the official post-processing."""

import torch
from mmdet.models import DeformableDETRHead
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import box_convert

from mpvit.models.layers import without_autocast
from mpvit.models.matching import Predictions, image_sizes, match

_EPS = torch.finfo(torch.float32).eps  # mmdet adds it to every divisor of a loss


@MODELS.register_module()
class OfficialDeformableDETRHead(DeformableDETRHead):
    """mmdet's head, but detections are not clipped to the image, as in the official code.

    Parameters, losses and names are mmdet's. The losses of all layers are computed together and
    the costs go to the host in one transfer (`mpvit.models.matching`). Also works where there are
    fewer than ``max_per_img`` pairs of query and class.
    """

    def forward(self, hidden_states: Tensor, references: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits and boxes of every layer, in the precision of the weights.

        Args:
            hidden_states: Output of the decoder layers, shape ``(layers, B, queries, channels)``.
            references: Relative points or boxes that the boxes are predicted from.

        Returns:
            Logits, shape ``(layers, B, queries, classes)``, and relative boxes
            ``(cx, cy, w, h)``, shape ``(layers, B, queries, 4)``.
        """
        with without_autocast(hidden_states):
            return super().forward(hidden_states, references)

    def loss_by_feat(
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        enc_cls_scores: Tensor | None,
        enc_bbox_preds: Tensor | None,
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: None = None,
    ) -> dict[str, Tensor]:
        """Losses of every decoder layer, and of the proposals where there are two stages.

        Args:
            all_layers_cls_scores: Logits, shape ``(layers, B, queries, classes)``.
            all_layers_bbox_preds: Relative boxes ``(cx, cy, w, h)``, ``(layers, B, queries, 4)``.
            enc_cls_scores: Logits of the proposals, shape ``(B, points, classes)``, or None.
            enc_bbox_preds: Boxes of the proposals, shape ``(B, points, 4)``, or None.
            batch_gt_instances: ``bboxes`` as ``(x1, y1, x2, y2)`` in pixels and ``labels``.
            batch_img_metas: With ``img_shape``, ``(h, w)`` in pixels.
            batch_gt_instances_ignore: Has to be None.

        Returns:
            Scalars by mmdet's names: ``loss_cls``, ``loss_bbox`` and ``loss_iou`` of the last
            layer, ``d<layer>.`` in front for the others, ``enc_`` for the proposals. NaN or
            infinite where predictions are.
        """
        assert batch_gt_instances_ignore is None, 'boxes to ignore are not supported'
        if isinstance(self.loss_cls, QualityFocalLoss):  # its targets are overlaps of boxes
            return super().loss_by_feat(
                all_layers_cls_scores,
                all_layers_bbox_preds,
                enc_cls_scores,
                enc_bbox_preds,
                batch_gt_instances,
                batch_img_metas,
            )
        batches = {
            '': Predictions(
                full(all_layers_cls_scores), full(all_layers_bbox_preds), batch_gt_instances
            )
        }
        if enc_cls_scores is not None and enc_bbox_preds is not None:
            batches['enc_'] = Predictions(
                full(enc_cls_scores)[None],
                full(enc_bbox_preds)[None],
                self._proposal_targets(batch_gt_instances),
            )
        sizes = image_sizes(batch_img_metas, batches[''].boxes)
        pairs = match(self.assigner.match_costs, list(batches.values()), batch_img_metas, sizes)
        losses = {}
        for (prefix, batch), matched in zip(batches.items(), pairs, strict=True):
            terms = self._losses(batch, matched, sizes)
            last = len(batch.logits) - 1
            for layer in (last, *range(last)):
                place = prefix if layer == last else f'd{layer}.'
                losses.update({place + name: values[layer] for name, values in terms.items()})
        return losses

    def _proposal_targets(self, targets: list[InstanceData]) -> list[InstanceData]:
        """Proposals are told from background only: one class, 0."""
        return [
            InstanceData(bboxes=target.bboxes, labels=torch.zeros_like(target.labels))
            for target in targets
        ]

    def _losses(self, batch: Predictions, pairs: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Every loss term of every layer, shape ``(layers,)``."""
        layers, images, queries, classes = batch.logits.shape
        image, query, target = pairs
        layer = torch.arange(layers, device=pairs.device)[:, None]
        count = pairs.shape[-1]
        positives = batch.logits.new_full((1,), count)
        shared = reduce_mean(positives).clamp(min=1)

        labels = torch.full(
            (layers, images, queries), self.num_classes, dtype=torch.long, device=pairs.device
        )
        labels[layer, image, query] = torch.cat([t.labels for t in batch.targets])[target]
        class_count = positives + (images * queries - count) * self.bg_cls_weight
        if self.sync_cls_avg_factor:
            class_count = reduce_mean(class_count)
        loss_cls = self.loss_cls(
            batch.logits.reshape(-1, classes), labels.flatten(), reduction_override='none'
        )

        # only matched predictions have box losses
        sizes = sizes[image]
        boxes = batch.boxes[layer, image, query]
        truth = torch.cat([t.bboxes for t in batch.targets]).to(boxes)[target] / sizes
        truth = box_convert(truth, 'xyxy', 'cxcywh')
        corners = [(box_convert(b, 'cxcywh', 'xyxy') * sizes).flatten(0, 1) for b in (boxes, truth)]
        if count:
            loss_bbox = self.loss_bbox(boxes, truth, reduction_override='none')
            loss_iou = self.loss_iou(*corners, reduction_override='none')
        else:  # zeros that the boxes still take part in, for gradients of 0
            loss_bbox = loss_iou = boxes
        return dict(
            loss_cls=_sums(loss_cls, layers) / (class_count.clamp(min=1) + _EPS),
            loss_bbox=_sums(loss_bbox, layers) / (shared + _EPS),
            loss_iou=_sums(loss_iou, layers) / (shared + _EPS),
        )

    def _predict_by_feat_single(
        self, cls_score: Tensor, bbox_pred: Tensor, img_meta: dict, rescale: bool = True
    ) -> InstanceData:
        """The best pairs of query and class of one image.

        Args:
            cls_score: Logits of the last decoder layer, shape ``(queries, classes)``.
            bbox_pred: Relative boxes ``(cx, cy, w, h)``, shape ``(queries, 4)``.
            img_meta: Holds ``ori_shape`` and ``img_shape``, ``(h, w)`` in pixels.
            rescale: Give boxes in pixels of the original image rather than of the resized one.

        Returns:
            ``bboxes`` as ``(x1, y1, x2, y2)`` in pixels, ``scores`` in [0, 1] in descending order,
            ``labels``, and ``queries``, which decoder query each of them comes from.
        """
        classes = cls_score.size(-1)
        count = min(self.test_cfg.get('max_per_img', len(cls_score)), cls_score.numel())
        scores, indices = cls_score.sigmoid().flatten().topk(count)
        queries = torch.div(indices, classes, rounding_mode='floor')
        height, width = img_meta['ori_shape' if rescale else 'img_shape'][:2]
        boxes = box_convert(bbox_pred[queries], 'cxcywh', 'xyxy')
        return InstanceData(
            bboxes=boxes * boxes.new_tensor([width, height, width, height]),
            scores=scores,
            labels=indices % classes,
            queries=queries,
        )


def full(tensor: Tensor) -> Tensor:
    """Half precision to float32: losses and costs of boxes need it."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _sums(loss: Tensor, layers: int) -> Tensor:
    return loss.reshape(layers, -1).sum(dim=1)
