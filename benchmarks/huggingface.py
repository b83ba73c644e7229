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

CONFIG = 'r50_ddetr_50e'
RENAMES = [  # our names -> theirs, applied in this order
    (r'^(backbone)\.', r'model.\1.model.'),
    (r'^neck\.convs\.(\d)\.conv\.', r'model.input_proj.\1.0.'),
    (r'^neck\.convs\.(\d)\.gn\.', r'model.input_proj.\1.1.'),
    (r'^neck\.extra_convs\.0\.conv\.', r'model.input_proj.3.0.'),
    (r'^neck\.extra_convs\.0\.gn\.', r'model.input_proj.3.1.'),
    (r'^query_embedding\.', r'model.query_position_embeddings.'),
    (r'^reference_points_fc\.', r'model.reference_points.'),
    (r'^level_embed$', r'model.level_embed'),
    (r'^bbox_head\.cls_branches\.', r'class_embed.'),
    (r'^bbox_head\.reg_branches\.(\d)\.0\.', r'bbox_embed.\1.layers.0.'),
    (r'^bbox_head\.reg_branches\.(\d)\.2\.', r'bbox_embed.\1.layers.1.'),
    (r'^bbox_head\.reg_branches\.(\d)\.4\.', r'bbox_embed.\1.layers.2.'),
    (r'^(encoder|decoder)\.', r'model.\1.'),
    (r'\.ffn\.layers\.0\.0\.', r'.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', r'.mlp.fc2.'),
    (r'\.norms\.0\.', r'.self_attn_layer_norm.'),
    (r'(encoder\.layers\.\d)\.norms\.1\.', r'\1.final_layer_norm.'),
    (r'\.norms\.1\.', r'.encoder_attn_layer_norm.'),
    (r'\.norms\.2\.', r'.final_layer_norm.'),
    (r'\.cross_attn\.', r'.encoder_attn.'),
    (r'\.self_attn\.attn\.out_proj\.', r'.self_attn.o_proj.'),
]


def their_weights(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the names of transformers.

    Args:
        ours: Of a ResNet-50 detector that is neither folded nor refines boxes.
    """
    theirs = {}
    for name, tensor in ours.items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        if '.attn.in_proj_' in name:  # query, key and value are one matrix in ours
            for part, rows_of_it in zip('qkv', tensor.chunk(3), strict=True):
                theirs[name.replace('attn.in_proj_', f'{part}_proj.')] = rows_of_it
        elif not name.endswith('num_batches_tracked'):
            theirs[name] = tensor
    return theirs


def their_model(weights: dict[str, Tensor]) -> nn.Module:
    """The detector of transformers with our weights; needs no download.

    Args:
        weights: State dict of ours.
    """
    os.environ['HF_HUB_OFFLINE'] = '1'
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

    model = DeformableDetrForObjectDetection(
        DeformableDetrConfig(
            num_labels=80,
            num_queries=len(weights['query_embedding.weight']),
            encoder_layers=_count(r'encoder\.layers\.(\d+)\.', weights),
            decoder_layers=_count(r'decoder\.layers\.(\d+)\.', weights),
        )
    )
    model.load_state_dict(their_weights(weights))
    return model.eval()


def _count(pattern: str, weights: dict[str, Tensor]) -> int:
    return 1 + max(int(found[1]) for found in map(re.compile(pattern).match, weights) if found)


def their_outputs(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and relative boxes of transformers' model for normalised images."""
    with torch.no_grad():
        outputs = model(pixel_values=images)
    return outputs.logits, outputs.pred_boxes


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
