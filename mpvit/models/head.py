"""The detection head with the official post-processing."""

import torch
from mmdet.models import DeformableDETRHead
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import box_convert


@MODELS.register_module()
class OfficialDeformableDETRHead(DeformableDETRHead):
    """mmdet's head, but detections are not clipped to the image, as in the official code.

    Parameters, losses and names are unchanged. Also works where there are fewer than
    ``max_per_img`` pairs of query and class.
    """

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
            ``bboxes`` as ``(x1, y1, x2, y2)`` in pixels, ``scores`` in [0, 1] in descending order
            and ``labels``.
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
        )
