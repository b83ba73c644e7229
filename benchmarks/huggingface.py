"""The ResNet-50 detector against Hugging Face transformers' with the same weights."""

import os
import re

import torch
from torch import Tensor, nn

from benchmarks._timing import Action, Row, main, paired
from benchmarks.models import (
    FULL,
    config_of,
    image_tensor,
    on_stock_path,
    our_model,
    prediction,
    prepared,
    raw_outputs,
)
from mpvit.checkpoints.coco_categories import COCO_IDS, OFFICIAL_CHANNELS
from mpvit.checkpoints.conversion import to_hugging_face

CONFIG = 'r50_ddetr_50e'


def their_model(weights: dict[str, Tensor]) -> nn.Module:
    """The detector of transformers with our weights; needs no download.

    Args:
        weights: State dict of a ResNet-50 detector of ours that is not folded.
    """
    os.environ['HF_HUB_OFFLINE'] = '1'
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

    theirs, _ = to_hugging_face({'state_dict': weights})
    config = DeformableDetrConfig(
        num_labels=OFFICIAL_CHANNELS,
        num_queries=len(weights['query_embedding.weight']),
        encoder_layers=_count(r'encoder\.layers\.(\d+)\.', weights),
        decoder_layers=_count(r'decoder\.layers\.(\d+)\.', weights),
    )
    model = DeformableDetrForObjectDetection.from_pretrained(None, config=config, state_dict=theirs)
    return model.eval()


def _count(pattern: str, weights: dict[str, Tensor]) -> int:
    return 1 + max(int(found[1]) for found in map(re.compile(pattern).match, weights) if found)


def their_outputs(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of our classes and relative boxes of transformers' model for normalised images."""
    with torch.no_grad():
        outputs = model(pixel_values=images)
    return outputs.logits[..., COCO_IDS], outputs.pred_boxes


def their_action(size: tuple[int, int], quick: bool) -> Action:
    """Inference with transformers."""
    model = their_model(our_model(config_of(CONFIG, quick)).state_dict())
    images = image_tensor(size)
    return lambda: their_outputs(model, images)


def rows(quick: bool) -> list[Row]:
    """Time of inference, from the normalised image."""
    size, runs = ((128, 160), 3) if quick else (FULL, 5)
    plain = our_model(config_of(CONFIG, quick))
    ours = prepared(plain)
    theirs = their_outputs(their_model(plain.state_dict()), image_tensor(size))
    pairs = zip(raw_outputs(ours, size), theirs, strict=True)
    logits, boxes = (float((a - b).abs().max()) for a, b in pairs)
    note = f'same weights; logits differ by {logits:.0e}, boxes by {boxes:.0e} of the image'
    what, against = f'R50 detector, {size[0]}x{size[1]}, fp32', 'transformers (Hugging Face)'
    with on_stock_path(their_action, size, quick) as action:
        return [paired(prediction(ours, size), action, runs).row(what, against, 2, note)]


if __name__ == '__main__':
    main(rows, __doc__)
