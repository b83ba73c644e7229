"""Does a checkpoint fit a model?"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mpvit.checkpoints.formats import weights_of
from mpvit.errors import UserError, listed


def check_fit(
    checkpoint: Mapping[str, Any],
    expected: Mapping[str, Tensor],
    advice: str = 'use the config that the checkpoint was trained with',
) -> None:
    """Make sure that a checkpoint has the model's tensors, in name and shape, and no others.

    Raises:
        UserError: It does not; the message names examples and gives the advice.
    """
    found = weights_of(checkpoint)
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
    _check_shared(found, expected)


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
