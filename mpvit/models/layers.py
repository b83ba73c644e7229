"""Position encodings, factorized attention and the transformer layer of MPViT and CoaT.

Tokens ``(B, N, C)`` are the memory of a channels-last map ``(B, C, H, W)`` read row by row, so
`to_tokens` and `to_map` are views as long as maps stay channels-last.

Sources: "Co-Scale Conv-Attentional Image Transformers" (Xu et al., ICCV 2021), section 3;
"MPViT: Multi-Path Vision Transformer for Dense Prediction" (Lee et al., CVPR 2022), section 3.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LAYER_NORM_EPS = 1e-6


def to_tokens(maps: Tensor) -> Tensor:
    """Map ``(B, C, H, W)`` to tokens ``(B, H * W, C)``; a view if the map is channels-last."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens ``(B, H * W, C)`` to a channels-last map of ``size`` ``(H, W)``; a view."""
    # not `unflatten`, which makes a constant of the size in an exported graph
    return tokens.view(tokens.size(0), *size, tokens.size(2)).permute(0, 3, 1, 2)


class ConvPositionEncoding(nn.Module):
    """Adds a depthwise 3x3 convolution of the tokens' map to the tokens (CoaT, section 3.2)."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(embed_dims, embed_dims, 3, padding=1, groups=embed_dims)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Encode positions of tokens ``(B, H * W, C)`` lying on a grid of ``size`` ``(H, W)``."""
        return tokens + to_tokens(self.proj(to_map(tokens, size)))


class ConvRelativePositionEncoding(nn.Module):
    """Depthwise convolutions of the values, with a window per group of heads (CoaT, eq. 5).

    Args:
        head_dims: Channels of a head.
        window_heads: Heads that get each window size, ``{kernel: heads}``, in channel order.
    """

    def __init__(self, head_dims: int, window_heads: dict[int, int]) -> None:
        super().__init__()
        self.splits = [heads * head_dims for heads in window_heads.values()]
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
            for kernel, channels in zip(window_heads, self.splits, strict=True)
        )

    def forward(self, value: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Convolve values ``(B, H * W, C)``, channels head-major.

        Returns:
            By groups of channels, in their order, shapes ``(B, H * W, C_group)``.
        """
        groups = to_map(value, size).split(self.splits, dim=1)
        return [to_tokens(conv(group)) for conv, group in zip(self.convs, groups, strict=True)]


class FactorizedAttention(nn.Module):
    """Attention of linear cost with convolutional relative position encoding (CoaT, eq. 6).

    ``softmax(k)`` runs over the tokens, so ``softmax(k)^T v`` is a small matrix per head. Only
    this term is scaled by ``head_dims ** -0.5``; the position term multiplies the unscaled query.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (embed_dims // num_heads) ** -0.5
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(
        self, tokens: Tensor, size: tuple[int, int], crpe: ConvRelativePositionEncoding
    ) -> Tensor:
        """Attend among normalised tokens ``(B, H * W, C)`` on a grid of ``size`` ``(H, W)``."""
        # (B, N, 3 * C) -> three of (B, N, C), channels head-major
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        position = torch.cat(crpe(value, size), dim=-1)
        # (B, N, C) -> (B, heads, N, d), a view
        q, k, v = (
            t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (query, key, value)
        )
        context = k.softmax(dim=2).transpose(2, 3) @ v  # (B, heads, d, d)
        # (B, heads, N, d) -> (B, N, C)
        attended = (q @ (self.scale * context)).transpose(1, 2).flatten(2)
        return self.proj(attended + query * position)


class TransformerLayer(nn.Module):
    """Pre-norm layer: position encoding, factorized attention, MLP.

    The position encodings are given to `forward` because all layers of a path share them. The
    hidden width of the MLP is ``mlp_ratio`` times ``embed_dims``; ``drop_path``, in [0, 1), is the
    probability of dropping a residual branch of a sample.
    """

    def __init__(self, embed_dims: int, num_heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self.attn = FactorizedAttention(embed_dims, num_heads)
        self.norm2 = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(embed_dims, int(embed_dims * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self,
        tokens: Tensor,
        size: tuple[int, int],
        cpe: ConvPositionEncoding,
        crpe: ConvRelativePositionEncoding,
    ) -> Tensor:
        """Transform tokens ``(B, H * W, C)`` on a grid of ``size`` ``(H, W)``."""
        tokens = cpe(tokens, size)
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), size, crpe))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


def drop_path_rates(maximum: float, layers: Sequence[int]) -> list[list[float]]:
    """Rates growing linearly from 0 to ``maximum`` with depth, one list per stage."""
    rates = iter(torch.linspace(0, maximum, sum(layers)).tolist())
    return [[next(rates) for _ in range(count)] for count in layers]


def run(layer: Callable[..., Any], *args: Any, with_cp: bool, **kwargs: Any) -> Any:
    """``layer(*args, **kwargs)``; with ``with_cp``, activations are computed again, not stored."""
    if with_cp and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False, **kwargs)
    return layer(*args, **kwargs)


@contextmanager
def without_autocast(like: Tensor) -> Iterator[None]:
    """Compute in the precision of the weights for a while, also inside ``torch.autocast``.

    Coordinates of boxes need it: bfloat16 rounds by up to 1.6 px on an image of 800, and what is
    above 0.998 to 1. ``like`` tells the device.
    """
    device = like.device.type
    if device != 'meta' and torch.is_autocast_enabled(device):  # meta has no autocast to ask for
        with torch.autocast(device, enabled=False):
            yield
    else:  # traces and exported graphs stay free of it
        yield
