"""What a checkpoint holds, told by its keys alone."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mpvit.errors import UserError

# Where weights are kept: (plain, exponential moving average)
_PLACES = (('state_dict', 'ema_state_dict'), ('model', 'model_ema'))
_WRAPPER = 'module.'
_COUNTER = re.compile(r'(.*\.)?total_(params|ops)')  # left in a model by a profiler
_BACKBONE = 'backbone.'
_RESNET = re.compile(r'(conv1|bn1|layer[1-4]\.\d+\.(conv|bn|downsample))')


@dataclass(frozen=True)
class Layout:
    """Whose names the tensors have, and of what.

    Attributes:
        official: Names of the official implementations, or of torchvision; else ours.
        detector: A whole detector; else a backbone, alone or in a classifier.
        classifier: A backbone and the linear layer that it was trained with on ImageNet.
        hugging_face: Names of Hugging Face's transformers.
    """

    official: bool
    detector: bool
    classifier: bool = False
    hugging_face: bool = False

    def __str__(self) -> str:
        """Such as 'official detector'."""
        owner = 'official' if self.official else 'our'
        if self.hugging_face:
            owner = 'Hugging Face'
        kind = 'detector' if self.detector else 'classifier' if self.classifier else 'backbone'
        return f'{owner} {kind}'


def weights_of(checkpoint: Mapping[str, Any], ema: bool = False) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without the prefix of a distributed wrapper.

    Args:
        checkpoint: Content of a file: the tensors themselves, or a dict that holds them as
            ``state_dict`` or ``model``.
        ema: Take the exponential moving average instead (``ema_state_dict``, ``model_ema``).

    Raises:
        UserError: The average is asked for and there is none, or there is nothing else.
    """
    for plain, averaged in _PLACES:
        average = checkpoint.get(averaged)
        if isinstance(average, Mapping) and 'steps' in average:
            averaged = plain  # mmengine's hook saves the average as the weights, and these there
        wanted, other = (averaged, plain) if ema else (plain, averaged)
        if isinstance(checkpoint.get(wanted), Mapping):
            return _unwrapped(checkpoint[wanted])
        if isinstance(checkpoint.get(other), Mapping):
            kind = 'moving average (EMA) of weights' if ema else 'weights but their EMA'
            raise UserError(f'the checkpoint holds no {kind}: {wanted!r} is missing')
    if ema:
        raise UserError('the checkpoint holds no moving average (EMA) of weights')
    return _unwrapped(checkpoint)


def without_counters(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors without what a profiler left among them, and the names of that."""
    dropped = [name for name in weights if _COUNTER.fullmatch(name)]
    return {name: value for name, value in weights.items() if name not in dropped}, dropped


def layout_of(names: Iterable[str]) -> Layout | None:
    """Whose names these are, of all tensors and without prefixes of wrappers, and of what.

    None if the layout is none of those known. A bare ResNet counts as official.
    """
    names = set(names)

    def some(*beginnings: str) -> bool:
        return any(name.startswith(beginnings) for name in names)

    if some('transformer.') and some('class_embed.'):
        return Layout(official=True, detector=True)
    if some('model.encoder.layers.') and some('model.input_proj.', 'model.level_embed'):
        return Layout(official=False, detector=True, hugging_face=True)
    if some('bbox_head.') and some('backbone.', 'encoder.'):
        return Layout(official=False, detector=True)
    if some('mhca_stages.') and some('cls_head.cls.'):
        return Layout(official=True, detector=False, classifier=True)
    if some('mhca_stages.', 'serial_blocks') or (
        'layer1.0.conv1.weight' in names
        and all(_RESNET.match(name) or name.startswith('fc.') for name in names)
    ):
        return Layout(official=True, detector=False)
    if some('head.fc.') and some('backbone.stages.0.paths.'):
        return Layout(official=False, detector=False, classifier=True)
    if some('stages.0.') and (some('stages.0.paths.') or some('stages.0.cls_token')):
        return Layout(official=False, detector=False)
    return None


def classifier_from(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's tensors by the names of its config, from a backbone's names and the head's."""
    return {n if n.startswith('head.') else _BACKBONE + n: value for n, value in weights.items()}


def backbone_and_head_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `classifier_from`."""
    return {n.removeprefix(_BACKBONE): value for n, value in weights.items()}


def _unwrapped(weights: Mapping[str, Any]) -> dict[str, Any]:
    if not all(isinstance(name, str) for name in weights):
        raise UserError('the checkpoint holds no weights: its entries have no names')
    return {name.removeprefix(_WRAPPER): value for name, value in weights.items()}
