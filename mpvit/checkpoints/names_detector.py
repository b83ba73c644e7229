"""Names of an official Deformable DETR file translated to ours and back, backbone included.

Three layouts exist: plain, box refinement, and box refinement with two stages.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from mpvit.checkpoints.names_coat import coat_from_official, coat_layers, coat_to_official
from mpvit.checkpoints.names_mpvit import (
    apply,
    mpvit_from_official,
    mpvit_to_official,
    two_way,
)
from mpvit.errors import UserError

# Official name and ours, as in `names.py`.
_DETECTOR: tuple[tuple[str, str], ...] = (
    ('input_proj.3.0.', 'neck.extra_convs.0.conv.'),
    ('input_proj.3.1.', 'neck.extra_convs.0.gn.'),
    ('input_proj.#.0.', 'neck.convs.#.conv.'),
    ('input_proj.#.1.', 'neck.convs.#.gn.'),
    ('transformer.level_embed', 'level_embed'),
    ('transformer.encoder.layers.#.norm1.', 'encoder.layers.#.norms.0.'),
    ('transformer.encoder.layers.#.norm2.', 'encoder.layers.#.norms.1.'),
    ('transformer.encoder.layers.#.linear1.', 'encoder.layers.#.ffn.layers.0.0.'),
    ('transformer.encoder.layers.#.linear2.', 'encoder.layers.#.ffn.layers.1.'),
    ('transformer.encoder.layers.#.self_attn.', 'encoder.layers.#.self_attn.'),
    # numbered by when they were added there, by when they are applied here
    ('transformer.decoder.layers.#.norm2.', 'decoder.layers.#.norms.0.'),
    ('transformer.decoder.layers.#.norm1.', 'decoder.layers.#.norms.1.'),
    ('transformer.decoder.layers.#.norm3.', 'decoder.layers.#.norms.2.'),
    ('transformer.decoder.layers.#.linear1.', 'decoder.layers.#.ffn.layers.0.0.'),
    ('transformer.decoder.layers.#.linear2.', 'decoder.layers.#.ffn.layers.1.'),
    ('transformer.decoder.layers.#.self_attn.', 'decoder.layers.#.self_attn.attn.'),
    ('transformer.decoder.layers.#.cross_attn.', 'decoder.layers.#.cross_attn.'),
    ('query_embed.', 'query_embedding.'),
    ('transformer.reference_points.', 'reference_points_fc.'),
    ('transformer.enc_output.', 'memory_trans_fc.'),
    ('transformer.enc_output_norm.', 'memory_trans_norm.'),
    ('transformer.pos_trans.', 'pos_trans_fc.'),
    ('transformer.pos_trans_norm.', 'pos_trans_norm.'),
    ('class_embed.#.', 'bbox_head.cls_branches.#.'),
    ('bbox_embed.#.layers.0.', 'bbox_head.reg_branches.#.0.'),
    ('bbox_embed.#.layers.1.', 'bbox_head.reg_branches.#.2.'),
    ('bbox_embed.#.layers.2.', 'bbox_head.reg_branches.#.4.'),
)
_FROM_OFFICIAL, _TO_OFFICIAL = two_way(_DETECTOR)

# With box refinement the official decoder holds the box layers too, and the class layers when
# there are two stages: the same tensors under a second name.
_DECODER_COPY = re.compile(r'transformer\.decoder\.((?:class|bbox)_embed\..*)')
_HEAD = re.compile(r'((?:class|bbox)_embed\.)\d+')
_MPVIT = re.compile(r'(stem|patch_embed_stages|mhca_stages|cls_head)\.')
_RESNET = re.compile(r'(conv1|bn1|layer\d+)\.')
_RESNET_PREFIX, _BACKBONE_PREFIX = 'backbone.0.body.', 'backbone.0.backbone.'


def detector_name_from_official(name: str) -> str | None:
    """Our name of a tensor of an official detector file.

    Args:
        name: Official name, such as ``transformer.encoder.layers.0.norm1.weight``.

    Returns:
        Our name; None for a second name of another tensor.

    Raises:
        KeyError: The name does not belong to an official detector.
    """
    if name.startswith('backbone.0.'):
        prefix = _RESNET_PREFIX if name.startswith(_RESNET_PREFIX) else _BACKBONE_PREFIX
        if not name.startswith(prefix):
            raise KeyError(f'{name!r} is not a tensor of a known backbone')
        ours = backbone_name_from_official(name.removeprefix(prefix))
        return None if ours is None else f'backbone.{ours}'
    if _DECODER_COPY.fullmatch(name):
        return None
    return apply(_FROM_OFFICIAL, name, 'an official Deformable DETR checkpoint')


def detector_names_to_official(names: Iterable[str], refine: bool) -> dict[str, list[str]]:
    """Official names of all tensors of one of our detectors.

    Args:
        names: All names of the model.
        refine: The model refines boxes, which its names alone do not tell.

    Returns:
        Our name to official ones: the first, then its copies. An empty list for batch norm's
        step counter, which the official ResNet does not have.

    Raises:
        KeyError: A name does not belong to our detectors.
    """
    names = list(names)
    two_stage = 'memory_trans_fc.weight' in names
    inner = [name.removeprefix('backbone.') for name in names if name.startswith('backbone.')]
    prefix = _RESNET_PREFIX if any(map(_RESNET.match, inner)) else _BACKBONE_PREFIX
    result = {
        f'backbone.{name}': [prefix + official for official in to]
        for name, to in backbone_names_to_official(inner).items()
    }
    for name in names:
        if name.startswith('backbone.'):
            continue
        official = apply(_TO_OFFICIAL, name, 'our Deformable DETR')
        result[name] = [official]
        copied = {'class_embed': two_stage, 'bbox_embed': refine}
        if copied.get(official.partition('.')[0]):
            result[name].append(f'transformer.decoder.{official}')
    return result


def refines_boxes(weights: Mapping[str, Tensor]) -> bool:
    """Whether one of our detectors has box layers of its own for each decoder layer.

    Args:
        weights: All tensors of the model.
    """
    pattern = re.compile(r'bbox_head\.reg_branches\.\d+\.(.*)')
    return any(
        not torch.equal(value, weights[f'bbox_head.reg_branches.0.{match[1]}'])
        for name, value in weights.items()
        if (match := pattern.fullmatch(name))
    )


def copies_of(names: Iterable[str]) -> dict[str, str]:
    """Which tensors of an official file, of a detector or a bare backbone, repeat another.

    Args:
        names: All names of the file; unknown ones are ignored.

    Returns:
        Name of a copy to the name that it repeats.
    """
    names = list(names)
    bare = not any(name.startswith('backbone.') for name in names)
    refine = any(name.startswith('transformer.decoder.bbox_embed.') for name in names)
    rule = backbone_name_from_official if bare else detector_name_from_official
    ours = []
    for name in names:
        with contextlib.suppress(KeyError):
            ours.append(rule(name))
    known = [name for name in ours if name is not None]
    back = backbone_names_to_official(known) if bare else detector_names_to_official(known, refine)
    copies = {copy: first for first, *rest in filter(None, back.values()) for copy in rest}
    if not bare and not refine:  # one head for all decoder layers
        heads = [name for name in names if _HEAD.match(name)]
        copies |= {n: _HEAD.sub(r'\g<1>0', n) for n in heads if _HEAD.sub(r'\g<1>0', n) != n}
    return copies


def check_copies(weights: Mapping[str, Tensor]) -> None:
    """Make sure that repeated tensors are equal, so that dropping one loses nothing.

    Args:
        weights: All tensors of an official file by name.

    Raises:
        UserError: Two differ, or the repeated one is missing.
    """
    for name, first in copies_of(weights).items():
        if name not in weights:
            continue
        if first not in weights:
            raise UserError(f'the checkpoint is damaged: {first}, which {name} repeats, is missing')
        if not torch.equal(weights[name], weights[first]):
            raise UserError(
                f'the checkpoint is damaged: {name} must be a copy of {first} and is not'
            )


def backbone_name_from_official(name: str) -> str | None:
    """Our name of a tensor of an official backbone file, or of torchvision's ResNet-50.

    Args:
        name: Official name without any prefix.

    Returns:
        Our name; None for a copy of another tensor and for the ImageNet classifier.

    Raises:
        KeyError: The name does not belong to a known backbone.
    """
    if _RESNET.match(name):
        return name
    if name.startswith('fc.'):
        return None
    if _MPVIT.match(name):
        return mpvit_from_official(name)
    return coat_from_official(name)


def backbone_names_to_official(names: Iterable[str]) -> dict[str, list[str]]:
    """Official names of all tensors of one of our backbones.

    Args:
        names: All names of the backbone.

    Returns:
        Our name to official ones: the first, then its copies. An empty list for batch norm's
        step counter in a ResNet.

    Raises:
        KeyError: A name does not belong to a known backbone.
    """
    names = list(names)
    if any(_RESNET.match(name) for name in names):
        return {name: [] if name.endswith('num_batches_tracked') else [name] for name in names}
    if any(name.startswith('stages.0.cls_token') for name in names):
        layers = coat_layers(names)
        return {name: coat_to_official(name, layers) for name in names}
    return mpvit_to_official(names)
