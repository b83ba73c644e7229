"""Whole checkpoints from foreign forms to ours and back, with a report of every tensor."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

from mpvit.checkpoints.class_layers import (
    UNUSED_BIAS,
    class_layers,
    class_names,
    official_rows,
    other_rows,
    refines_boxes,
    uncut,
)
from mpvit.checkpoints.coco_categories import COCO_IDS, COCO_NAMES, OFFICIAL_CHANNELS
from mpvit.checkpoints.compatibility import add_neck_biases, check_fit, missing_neck_biases
from mpvit.checkpoints.formats import (
    Layout,
    backbone_and_head_of,
    classifier_from,
    layout_of,
    weights_of,
    without_counters,
)
from mpvit.checkpoints.huggingface import add_shared_heads, from_official, joined
from mpvit.checkpoints.names import REFINED, official_names, our_name
from mpvit.checkpoints.reading import read
from mpvit.checkpoints.writing import write_durably
from mpvit.errors import UserError, listed

#: Entry of ``meta`` that keeps, by our name, the official class rows without a place in ours.
OTHER_ROWS = 'official_class_rows'
_HEAD = re.compile(r'(bbox_head\.\w+_branches\.)\d+')


@dataclass
class Report:
    """What a conversion did with every tensor.

    Attributes:
        source: What the checkpoint holds.
        matched: How many tensors have a place in the result.
        dropped: Reason to names of the tensors left out on purpose.
        notes: What else was done.
    """

    source: Layout
    matched: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, reason: str, *names: str) -> None:
        """Note tensors left out on purpose."""
        if names:
            self.dropped.setdefault(reason, []).extend(names)

    def lines(self) -> list[str]:
        """The report as text."""
        return [
            f'{self.source}: {self.matched} tensors matched',
            *(f'  {len(n)} dropped: {why} ({n[0]}, ...)' for why, n in self.dropped.items()),
            *(f'  {note}' for note in self.notes),
        ]


def to_ours(
    checkpoint: Mapping[str, Any], ema: bool = False
) -> tuple[dict[str, Any], Report] | None:
    """A checkpoint in official form or Hugging Face's as one of ours.

    It may be of a detector, a classifier or a backbone.

    Args:
        checkpoint: Content of a file.
        ema: Take the exponential moving average of the weights.

    Returns:
        Weights as ``state_dict`` with a ``meta``, and what was done. None if the checkpoint is
        in no known foreign form.

    Raises:
        UserError: It is, but holds unknown tensors or copies of tensors that differ.
    """
    weights, counters = without_counters(weights_of(checkpoint, ema))
    layout = layout_of(weights)
    if layout is None or not (layout.official or layout.hugging_face):
        return None
    wrong = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if wrong:
        raise UserError(f'the checkpoint ({layout}) is damaged: {wrong[0]} is no tensor')
    report = Report(layout)
    report.drop('counter of a profiler', *counters)
    named = _named(joined(weights) if layout.hugging_face else weights, layout, report)
    if layout.hugging_face and (added := add_shared_heads(named)):
        report.notes.append(f'{added} copies of the head that all decoder layers share added')
    meta: dict[str, Any] = {'converted_from': str(layout)}
    if layout.detector:
        named, others = _cut_classes(named, report)
        if others:
            meta |= {OTHER_ROWS: others, 'dataset_meta': {'classes': COCO_NAMES}}
    if layout.classifier:
        named = classifier_from(named)
    _add_step_counters(named, report)
    return {'state_dict': named, 'meta': meta}, report


def to_official(checkpoint: Mapping[str, Any], ema: bool = False) -> tuple[dict[str, Any], Report]:
    """One of our checkpoints, of a detector, classifier or backbone, in official form.

    Arguments are those of `to_ours`.

    Returns:
        Weights as ``model``, and what was done.

    Raises:
        UserError: The checkpoint is not one of ours, or holds unknown tensors.
    """
    weights = weights_of(checkpoint, ema)
    layout = layout_of(weights)
    is_resnet = 'layer1.0.conv1.weight' in weights  # whose official names are ours
    if layout is None or (layout.official and not is_resnet):
        raise UserError(f'expected one of our checkpoints, found {layout or "unknown tensors"}')
    report = Report(layout)
    if layout.classifier:
        weights = backbone_and_head_of(weights)
    if layout.detector and (zeros := missing_neck_biases(weights)):
        weights = {**weights, **zeros}
        report.notes.append(f'{len(zeros)} biases that mmdet leaves out of the neck added (0)')
    refine = 'memory_trans_fc.weight' in weights or refines_boxes(weights)
    try:
        names = official_names(weights, refine)
    except KeyError as error:
        raise UserError(f'unexpected tensor: {error.args[0]}') from error
    weights = _uncut_classes(weights, checkpoint, report)
    result = {official: weights[name] for name, to in names.items() for official in to}
    unnamed = [name for name, to in names.items() if not to]
    report.drop("step counter of batch norm, which the official ResNet doesn't have", *unnamed)
    report.matched = len(weights) - len(unnamed)
    if len(result) > report.matched:
        report.notes.append(f'{len(result) - report.matched} copies of shared tensors added')
    return {'model': result}, report


def to_hugging_face(
    checkpoint: Mapping[str, Any], ema: bool = False
) -> tuple[dict[str, Any], Report]:
    """One of our checkpoints, of a detector with a ResNet, as transformers reads it.

    Arguments are those of `to_ours`.

    Returns:
        The tensors of ``DeformableDetrForObjectDetection``, and what was done.

    Raises:
        UserError: The checkpoint is not one of ours, or of another model.
    """
    official, report = to_official(checkpoint, ema)
    if not report.source.detector:
        raise UserError(f"Hugging Face's form exists for detectors only, found {report.source}")
    return from_official(official['model']), report


_CONVERTERS = {'ours': to_ours, 'official': to_official, 'huggingface': to_hugging_face}


def convert_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: str = 'ours',
    ema: bool = False,
    sha256: str | None = None,
    model: Any = None,
    scope: str = 'mmdet',
) -> Report:
    """Convert a checkpoint file.

    Args:
        source: File to read.
        target: File to write; tensors alone, in the format safetensors, if its name ends so.
        to: 'ours', 'official' or 'huggingface'.
        ema: Take the exponential moving average of the weights.
        sha256: Expected sha256 of ``source`` in hex, or its beginning; None for no check.
        model: Settings of a model whose tensors our form must have; None for no check, and
            then only the names are known to be right.
        scope: The scope that names of modules in these settings belong to.

    Returns:
        What was done with every tensor.

    Raises:
        UserError: The file cannot be read or converted, or has other tensors than the model.
    """
    checkpoint = read(source, sha256=sha256)
    try:
        other = to_ours(checkpoint, ema) if to != 'ours' else None
        if other is not None:  # from one foreign form to the other
            checkpoint, ema = other[0], False
        converted = _CONVERTERS[to](checkpoint, ema)
        if converted is None:
            raise UserError("it is in no known official form and not in Hugging Face's")
        result, report = converted
        if model is not None:
            init_default_scope(scope)
            try:
                built = MODELS.build(model)
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise UserError(f'--config: its model does not build: {error}') from error
            fitting = result if to == 'ours' else checkpoint
            add_neck_biases(fitting, built.state_dict())
            check_fit(fitting, built.state_dict())
    except UserError as error:
        raise UserError(f'{source}: {error}') from error
    _write(result, Path(target), report)
    return report


def _write(checkpoint: dict[str, Any], target: Path, report: Report) -> None:
    if target.suffix != '.safetensors':
        write_durably(target, partial(torch.save, checkpoint))
        return
    # the format has no tensors that share memory or are channels-last
    tensors = {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in weights_of(checkpoint).items()
    }
    content = safetensors.torch.save(tensors, {'format': 'pt'})
    write_durably(target, lambda file: file.write(content))
    if checkpoint.get('meta'):
        report.notes.append('class names and other rows left out: .safetensors holds tensors only')


def _named(weights: Mapping[str, Tensor], layout: Layout, report: Report) -> dict[str, Tensor]:
    """Tensors by our names, each once; its copies in the file have to be equal."""
    # for all decoder layers; transformers may have left out the copies that tell
    one_head = layout.official and not any(name.startswith(REFINED) for name in weights)
    firsts: dict[str, str] = {}
    named: dict[str, Tensor] = {}
    unexpected = []
    for name, value in weights.items():
        try:
            ours = our_name(name, layout.hugging_face)
        except KeyError:
            unexpected.append(name)
            continue
        if ours is None:
            report.drop('ImageNet classifier', name)
            continue
        first = firsts.setdefault(_HEAD.sub(r'\g<1>0', ours) if one_head else ours, name)
        if first != name and not torch.equal(value, weights[first]):
            raise UserError(
                f'the checkpoint is damaged: {name} must be a copy of {first} and is not'
            )
        if ours in named:
            report.drop('copy of another tensor, verified equal', name)
        named.setdefault(ours, value)
    if unexpected:
        raise UserError(
            f'the checkpoint ({layout}) holds {len(unexpected)} unexpected tensors '
            f'({listed(unexpected)})'
        )
    report.matched = len(named)
    return named


def _cut_classes(
    weights: Mapping[str, Tensor], report: Report
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights with class layers of 80 channels, and the rows left over by our name."""
    result, others = dict(weights), {}
    for name, proposals in class_layers(weights).items():
        value = weights[name]
        channels = len(value)
        if channels == OFFICIAL_CHANNELS:
            result[name] = value[official_rows(proposals)]
            others[name] = value[other_rows(proposals)]
        elif not report.notes:
            report.notes.append(
                f'class layers of {channels} channels are not those of COCO and stay as they are'
            )
    if others:
        report.notes.append(
            f'class layers cut from {OFFICIAL_CHANNELS} to {len(COCO_IDS)} channels by COCO '
            f'category id; the others are kept in meta.{OTHER_ROWS}'
        )
    return result, others


def _uncut_classes(
    weights: Mapping[str, Tensor], checkpoint: Mapping[str, Any], report: Report
) -> dict[str, Tensor]:
    classes = class_names(checkpoint)
    if classes not in (None, list(COCO_NAMES)):
        return dict(weights)  # 80 classes by chance: they have no COCO ids to be spread over
    meta = checkpoint.get('meta')
    others = meta.get(OTHER_ROWS) if isinstance(meta, Mapping) else None
    others = others if isinstance(others, Mapping) else {}
    result = dict(weights)
    for name, proposals in class_layers(weights).items():
        if len(weights[name]) == len(COCO_IDS):
            result[name] = uncut(weights[name], others.get(name), proposals)
    if any(len(result[name]) != len(weights[name]) for name in weights if result[name].dim()):
        unknown = f'have weight 0 and bias {UNUSED_BIAS:.1f}'
        report.notes.append(
            f'class layers extended from {len(COCO_IDS)} to {OFFICIAL_CHANNELS} channels; the '
            f'others {"are those of the official file" if others else unknown}'
        )
    return result


def _add_step_counters(weights: dict[str, Tensor], report: Report) -> None:
    """Give every batch norm the counter that PyTorch's has and the official frozen one has not."""
    missing = [
        counter
        for name in list(weights)
        if name.endswith('.running_var')
        and (counter := name.replace('running_var', 'num_batches_tracked')) not in weights
    ]
    weights.update({name: torch.tensor(0) for name in missing})
    if missing:
        report.notes.append(f'{len(missing)} step counters of batch norm added (0)')
