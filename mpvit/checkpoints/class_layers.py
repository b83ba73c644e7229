"""Class layers: official channels to labels and back, and the rows of other classes."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mpvit.checkpoints.coco_categories import COCO_IDS, OFFICIAL_CHANNELS

#: Beginning of the names of our class layers.
CLASS_LAYERS = 'bbox_head.cls_branches'
#: Bias of an official channel that is no class where its trained value is not known, a score of
#: 1e-6, so that it is never among the detections. Its weights are 0.
UNUSED_BIAS = -math.log(1e6)

_OFFICIAL = re.compile(r'(?:transformer\.decoder\.)?class_embed\.(\d+)\.(?:weight|bias)')
_OURS = re.compile(r'bbox_head\.cls_branches\.(\d+)\.(?:weight|bias)')
#: DINO's embedding of classes, from which denoising queries are made; a row for each class.
_DENOISING = 'dn_query_generator.label_embedding.weight'
_QUERIES = 'query_embedding.weight'  # a row for each query


def class_layers(names: Iterable[str]) -> dict[str, bool]:
    """Which tensors of a detector are class layers, and whether they score proposals.

    The two-stage model scores proposals by its last class layer, whose channel 0 means 'object'
    whatever the class. It stays the first channel when others change places. DINO scores proposals
    by class. All names of a detector are needed to tell, official ones or ours.
    """
    names = list(names)
    found = {n: int(m[1]) for n in names if (m := _OFFICIAL.fullmatch(n) or _OURS.fullmatch(n))}
    if _DENOISING in names:
        return dict.fromkeys([*found, _DENOISING], False)
    two_stage = {'transformer.enc_output.weight', 'memory_trans_fc.weight'} & set(names)
    last = max(found.values(), default=-1) if two_stage else -1
    return {name: index == last for name, index in found.items()}


def official_rows(proposals: bool = False) -> list[int]:
    """Rows of an official class layer that become our rows 0 to 79.

    Where it scores proposals, row 0 means 'object' and stays first; that of category 1 is left out.
    """
    return [0, *COCO_IDS[1:]] if proposals else list(COCO_IDS)


def other_rows(proposals: bool = False) -> list[int]:
    """The eleven rows of an official class layer that have no place in ours."""
    return sorted(set(range(OFFICIAL_CHANNELS)) - set(official_rows(proposals)))


def uncut(value: Tensor, others: Tensor | None, proposals: bool) -> Tensor:
    """The official 91 rows from our 80 and the other eleven.

    Where those are not known (None) they get weights of 0 and the bias `UNUSED_BIAS`.
    """
    fill = UNUSED_BIAS if value.dim() == 1 else 0.0
    full = value.new_full((OFFICIAL_CHANNELS, *value.shape[1:]), fill)
    full[official_rows(proposals)] = value
    if others is not None:
        full[other_rows(proposals)] = others.to(value)
    return full


def refines_boxes(weights: Mapping[str, Tensor]) -> bool:
    """Whether one of our detectors has box layers of its own for each decoder layer."""
    pattern = re.compile(r'bbox_head\.reg_branches\.\d+\.(.*)')
    return any(
        not torch.equal(value, weights[f'bbox_head.reg_branches.0.{match[1]}'])
        for name, value in weights.items()
        if (match := pattern.fullmatch(name))
    )


def class_names(checkpoint: Mapping[str, Any]) -> list[str] | None:
    """Names of a checkpoint's classes in the order of its labels; None if it does not tell."""
    meta = checkpoint.get('meta')
    dataset = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    if not isinstance(dataset, Mapping):
        return None
    names = dataset.get('classes', dataset.get('CLASSES'))
    return [str(name) for name in names] if isinstance(names, (list, tuple)) else None


def with_queries(weights: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """A DINO's tensors for more queries: the learned ones again and again.

    What a query looks for comes from the proposal that it is paired with, so any of them will do.

    Args:
        weights: Tensors of a checkpoint, by our names.
        count: Queries of the model; nothing changes where the checkpoint has as many or more.
    """
    learned = weights.get(_QUERIES)
    if _DENOISING not in weights or learned is None or not 0 < len(learned) < count:
        return dict(weights)
    return {**weights, _QUERIES: learned[torch.arange(count) % len(learned)]}


def remap_classes(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Tensor],
    old: Sequence[str] | None,
    new: Sequence[str] | None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Class layers for other classes: known ones keep their rows, others start as in the model.

    Args:
        weights: Tensors of a checkpoint, by our names.
        model: Initial tensors of the model that is to be fine-tuned.
        old: Names of the checkpoint's classes; None if unknown, which keeps no class.
        new: Names of the model's classes; None if unknown, likewise.

    Returns:
        All tensors with the class layers replaced, and the names of the classes kept.
    """
    places = {name: index for index, name in enumerate(old or ())}
    pairs = [(i, places[name]) for i, name in enumerate(new or ()) if name in places]
    result = dict(weights)
    for name, proposals in class_layers(model).items():
        source, target = weights.get(name), model[name]
        if source is None or source.shape[1:] != target.shape[1:]:
            continue  # for the check that follows to tell
        moved = [(i, j) for i, j in pairs if i and j] if proposals else pairs
        moved = [*moved, (0, 0)] if proposals else moved
        value = target.detach().clone()
        if moved:
            to, from_ = (torch.tensor(rows) for rows in zip(*moved, strict=True))
            value[to.to(value.device)] = source[from_.to(source.device)].to(value)
        result[name] = value
    return result, [(new or ())[i] for i, _ in pairs]
