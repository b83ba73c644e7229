"""Tensors of Hugging Face's Deformable DETR that are others than the official ones."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mpvit.checkpoints.names import hugging_face_name
from mpvit.errors import UserError, listed

# query, key and value are three layers there and one in torch's attention
_PARTS = ('q_proj.', 'k_proj.', 'v_proj.')
_QUERY = re.compile(r'(model\.decoder\.layers\.\d+\.self_attn\.)q_proj\.(weight|bias)')
_JOINED = re.compile(r'(.*\.self_attn\.)in_proj_(weight|bias)')
_LAYER = re.compile(r'decoder\.layers\.(\d+)\.norms\.0\.weight')
_HEADS = ('bbox_head.cls_branches.', 'bbox_head.reg_branches.')


def joined(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by Hugging Face's names, with query, key and value as ``in_proj_weight`` and bias."""
    result = dict(weights)
    for name in weights:
        match = _QUERY.fullmatch(name)
        names = [name.replace(_PARTS[0], part) for part in _PARTS]
        if match and all(part in weights for part in names):
            tensors = [result.pop(part) for part in names]
            result[f'{match[1]}in_proj_{match[2]}'] = torch.cat(tensors)
    return result


def add_shared_heads(weights: dict[str, Tensor]) -> int:
    """Give every decoder layer its head where a file holds the only one that all share.

    transformers leaves out copies.

    Args:
        weights: Tensors of a detector by our names; what is missing is added.

    Returns:
        How many tensors were added.
    """
    before = len(weights)
    count = sum(bool(_LAYER.fullmatch(name)) for name in weights)
    count += 'memory_trans_fc.weight' in weights  # the last head is for proposals
    for head in _HEADS:
        given = {n: value for n, value in weights.items() if n.startswith(head)}
        if all(name.startswith(f'{head}0.') for name in given):
            for name, value in given.items():
                ending = name.removeprefix(f'{head}0.')
                weights.update({f'{head}{index}.{ending}': value for index in range(1, count)})
    return len(weights) - before


def from_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official detector under Hugging Face's names.

    Raises:
        UserError: Hugging Face has no such detector: its backbone is no ResNet.
    """
    result, unknown = {}, []
    for name, value in weights.items():
        try:
            renamed = hugging_face_name(name)
        except KeyError:
            unknown.append(name)
            continue
        match = _JOINED.fullmatch(renamed)
        if match:
            parts = zip(_PARTS, value.chunk(3), strict=True)
            result.update({f'{match[1]}{part}{match[2]}': rows for part, rows in parts})
        else:
            result[renamed] = value
    if unknown:
        raise UserError(
            "Hugging Face's form exists for Deformable DETR with a ResNet only, which has no "
            f'{listed(unknown, 2)}'
        )
    return result
