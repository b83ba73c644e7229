"""Does a checkpoint fit a model?"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mpvit.errors import UserError

_SHOWN = 3  # names listed of each kind of mismatch


def weights_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without the prefix of a distributed wrapper.

    Args:
        checkpoint: Content of a file: the tensors themselves, or a dict that holds them as
            ``state_dict``.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    return {name.removeprefix('module.'): value for name, value in weights.items()}


def check_fit(
    checkpoint: Mapping[str, Any], expected: Mapping[str, Tensor], may_differ: str | None = None
) -> list[str]:
    """Make sure that a checkpoint has the model's tensors, in name and shape, and no others.

    Args:
        checkpoint: Content of a checkpoint file.
        expected: State dict of the model.
        may_differ: Tensors with this in their name may have another shape; None for no such.

    Returns:
        Names of the tensors that do.

    Raises:
        UserError: It does not; the message names examples.
    """
    found = weights_of(checkpoint)
    reshaped = {
        name: f'{name} {tuple(getattr(found[name], "shape", ()))} instead of {tuple(value.shape)}'
        for name, value in expected.items()
        if name in found and getattr(found[name], 'shape', None) != value.shape
    }
    tolerated = [name for name in reshaped if may_differ is not None and may_differ in name]
    problems = {
        'missing': [name for name in expected if name not in found],
        'unexpected': [name for name in found if name not in expected],
        'of another shape': [text for name, text in reshaped.items() if name not in tolerated],
    }
    told = [
        f'{len(names)} {kind} ({", ".join(names[:_SHOWN])}{", ..." if len(names) > _SHOWN else ""})'
        for kind, names in problems.items()
        if names
    ]
    if told:
        raise UserError(
            f'the checkpoint is of another model than the config: {"; ".join(told)} of '
            f'{len(expected)} tensors; use the config that the checkpoint was trained with'
        )
    return tolerated
