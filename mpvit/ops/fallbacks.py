"""Stand-ins, in plain PyTorch, for the compiled mmcv ops that this project's models call.

mmdet's focal loss calls its op on GPUs, the merging of mirrored images (``--tta``) calls nms, and
other detectors that use our backbones, such as Mask R-CNN, call nms and RoIAlign.
Signatures are those of ``mmcv._ext`` (outputs are written in place where mmcv does so), so that
mmcv's own autograd functions and modules work on top of them, on any device.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops


def _sigmoid_focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    """Focal loss ("Focal Loss for Dense Object Detection", Lin et al., 2017) of every entry.

    Logits have the shape ``(N, classes)``, targets ``(N,)``, where ``classes`` itself means
    background; the weights of classes ``(classes,)`` or none.
    """
    classes = logits.size(1)
    positive = F.one_hot(target, classes + 1)[:, :classes].type_as(logits)
    loss = ops.sigmoid_focal_loss(logits, positive, alpha, gamma)
    return loss * F.pad(weight, (0, 1), value=1.0)[target, None] if weight.numel() else loss


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss per entry into ``output``."""
    output.copy_(_sigmoid_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of every loss entry by its logit into ``grad_input``."""
    logits = input.detach().requires_grad_()
    with torch.enable_grad():
        loss = _sigmoid_focal_loss(logits, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, logits)[0])


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes kept, best first; ``offset`` 1 counts pixels inclusively."""
    extent = boxes.new_tensor([0, 0, offset, offset])
    return ops.nms(boxes + extent, scores, iou_threshold)


def _roi_align(
    input: Tensor,
    rois: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign of ``(B, C, H, W)`` in ``rois`` ``(K, 5)``: index of the image, and corners."""
    if pool_mode == 0:
        raise RuntimeError("RoIAlign with pool_mode='max' needs mmcv's compiled ops")
    size = aligned_height, aligned_width
    return ops.roi_align(input, rois, size, spatial_scale, sampling_ratio, aligned)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    **settings: Any,
) -> None:
    """Write what the boxes hold, ``(K, C, height, width)``, into ``output``."""
    output.copy_(_roi_align(input, rois, **settings))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **settings: Any,
) -> None:
    """Write the derivative by the maps into ``grad_input``; it does not depend on the maps."""
    maps = torch.zeros_like(grad_input).requires_grad_()
    with torch.enable_grad():
        output = _roi_align(maps, rois, **settings)
    grad_input.copy_(torch.autograd.grad(output, maps, grad_output)[0])


PROVIDED = {
    op.__name__: op
    for op in (
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        nms,
        roi_align_forward,
        roi_align_backward,
    )
}
