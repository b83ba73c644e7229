"""Does a checkpoint fit a model?"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mpvit.checkpoints.formats import layout_of, weights_of
from mpvit.checkpoints.reading import all_finite, is_plain
from mpvit.errors import UserError, listed

_NECK = re.compile(r'(neck\.(?:extra_)?convs\.\d+\.)conv\.weight')
_PARTS_OF_DETECTORS = ('bbox_head.', 'neck.', 'roi_head.', 'rpn_head.')
_WEIGHTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_MMDET_2 = 'bbox_head.transformer.'


class WeightsError(UserError):
    """A checkpoint of any model whose tensors hold something else than weights."""


def missing_neck_biases(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zeros for the biases that mmdet's own neck leaves out, because a norm follows, by name.

    The detectors of mmdet are equal to ours with these. Empty if there is a bias or no such neck.
    """
    necks = [match for name in weights if (match := _NECK.fullmatch(name))]
    if any(f'{m[1]}conv.bias' in weights or f'{m[1]}gn.bias' not in weights for m in necks):
        return {}
    return {f'{m[1]}conv.bias': torch.zeros_like(weights[f'{m[1]}gn.bias']) for m in necks}


def add_neck_biases(checkpoint: dict[str, Any], expected: Mapping[str, Tensor]) -> str | None:
    """Give a checkpoint of mmdet's own Deformable DETR the biases that our model has.

    Args:
        checkpoint: Content of a file; its ``state_dict`` is replaced where biases are added.
        expected: Tensors of the model.

    Returns:
        A line that says what was added, if anything was.
    """
    weights = weights_of(checkpoint)
    added = {n: zeros for n, zeros in missing_neck_biases(weights).items() if n in expected}
    if not added:
        return None
    checkpoint['state_dict'] = {**weights, **added}
    return f'{len(added)} biases that mmdet leaves out of the neck added (0).'


def check_fit(
    checkpoint: Mapping[str, Any],
    expected: Mapping[str, Tensor],
    advice: str = 'use the config that the checkpoint was trained with',
) -> None:
    """Make sure that a checkpoint has the model's tensors, in name and shape, and no others.

    Weights are real numbers of 16 to 64 bits, all of them finite.

    Raises:
        UserError: It does not; the message names examples and gives the advice, or says what the
            checkpoint is of, such as a classifier where the model is a detector. Or a tensor, which
            is named, holds something else than weights.
    """
    found = weights_of(checkpoint)
    _check_kind(checkpoint, found, expected)
    problems = {
        'missing': [name for name in expected if name not in found],
        'unexpected': [name for name in found if name not in expected],
        'of another shape': [
            f'{name} {tuple(getattr(found[name], "shape", ()))} instead of {tuple(value.shape)}'
            for name, value in expected.items()
            if name in found and getattr(found[name], 'shape', None) != value.shape
        ],
    }
    told = [
        f'{len(names)} {kind} ({listed(names, 3)})' for kind, names in problems.items() if names
    ]
    if told:
        raise UserError(
            f'the checkpoint is of another model than the config: {"; ".join(told)} of '
            f'{len(expected)} tensors; {advice}'
        )
    check_values(found, expected)
    _check_shared(found, expected)


def check_values(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    """Make sure that tensors hold weights: torch copies any kind of number into any other.

    Args:
        found: What is to be loaded, by name.
        expected: Tensors of the model, of the same names; where these are no floating-point
            numbers, as in counters, other kinds of numbers than booleans may be loaded.

    Raises:
        WeightsError: A tensor is of another kind, or holds NaN or infinity, or would in the
            model. It is named.
    """
    for name, wanted in expected.items():
        value = found[name]
        fault = value_fault(value, wanted)
        if fault:
            raise WeightsError(
                f'the checkpoint cannot be used: {name} {fault}; take one that was written '
                'earlier, or get the file again'
            )


def value_fault(value: Any, wanted: Tensor) -> str | None:
    """What keeps numbers from being used in the place of a tensor of the model; see `check_values`.

    They are looked at as the model will hold them: what is finite in 64 bits may not be in 32.
    """
    return _kind_fault(value, wanted) or _number_fault(value, wanted)


def _kind_fault(value: Any, wanted: Tensor) -> str | None:
    if not isinstance(value, Tensor):
        return f'is a {type(value).__name__}, not a tensor'
    if not is_plain(value):
        return 'is sparse or without values'
    kinds = _WEIGHTS if wanted.is_floating_point() else (wanted.dtype, *_WEIGHTS, *_COUNTERS)
    if value.dtype in kinds:
        return None
    return f'holds numbers of the kind {_named(value)}, where the model has {_named(wanted)}'


def _named(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix('torch.')


def _number_fault(value: Tensor, wanted: Tensor) -> str | None:
    if wanted.is_floating_point():
        value = value.to(wanted.dtype)
    if not value.is_floating_point() or all_finite(value):
        return None
    odd = value.numel() - int(value.isfinite().sum())
    return f'holds NaN or infinity in {odd:,} of {value.numel():,} values'


def _check_kind(
    checkpoint: Mapping[str, Any], found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Refuse what is plainly of something else, in a line of its own."""
    if any(name.startswith(_MMDET_2) for name in found):
        raise UserError(
            'the checkpoint has the names of mmdet 2, which version 3 changed; take the file that '
            'mmdet 3 offers for the same model'
        )
    layout = layout_of(found)
    detector = any(name.startswith(_PARTS_OF_DETECTORS) for name in expected)
    if layout is None or layout.detector == detector:
        return
    meta = checkpoint.get('meta')
    source = meta.get('converted_from') if isinstance(meta, Mapping) else None
    if detector:
        raise UserError(
            f'the checkpoint is not of a detector ({source or layout}): only the backbone of a '
            'training can start from it, by --pretrained'
        )
    raise UserError(f'the checkpoint is of a whole detector ({source or layout})')


def _check_shared(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """What is one tensor in the model must not be several different ones in the file.

    It is with the box layers of a file with box refinement and a config without.
    """
    first: dict[int, str] = {}
    for name, value in expected.items():
        original = first.setdefault(value.data_ptr(), name) if value.numel() else name
        if original != name and not torch.equal(found[name], found[original]):
            raise UserError(
                f'the checkpoint is of another model than the config: {name} and {original} '
                'differ, but are one tensor in the model; the file is of a variant with box '
                'refinement and the config has none (model.with_box_refine)'
            )
