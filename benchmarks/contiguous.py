"""MPViT as one writes it at first: plain layers, on contiguous maps.

What our backbone is compared with. It is the same network with the same tensor names, so it takes
our weights; `tests/benchmarks` holds its outputs to ours.
"""

from unittest import mock

import torch
from mmdet.registry import MODELS
from torch import Tensor

import mpvit.models.layers
import mpvit.models.mpvit
from mpvit.models.mpvit import MPViT


def to_tokens(maps: Tensor) -> Tensor:
    """Map ``(B, C, H, W)`` to tokens ``(B, H * W, C)``."""
    return maps.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens ``(B, H * W, C)`` to a contiguous map ``(B, C, H, W)``: a copy."""
    return tokens.transpose(1, 2).reshape(tokens.size(0), tokens.size(2), *size)


@MODELS.register_module()
class ContiguousMPViT(MPViT):
    """MPViT on contiguous maps; arguments are those of `MPViT`."""

    def _finish(self) -> None:
        """Nothing is made fast."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Contiguous feature maps of images ``(B, 3, H, W)``."""
        modules = (mpvit.models.layers, mpvit.models.mpvit)
        names = dict(to_tokens=to_tokens, to_map=to_map)
        first, second = (mock.patch.multiple(module, **names) for module in modules)
        as_it_is = mock.patch.object(torch, 'channels_last', torch.contiguous_format)
        with first, second, as_it_is:
            return super().forward(images)
