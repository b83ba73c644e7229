"""MPViT as one writes it at first: contiguous maps, attention head by head.

What our backbone is compared with. It is the same network with the same tensor names, so it takes
our weights; `tests/benchmarks` holds its outputs to ours.
"""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from mpvit.models.mpvit import ARCH_DEFAULTS, ARCHS


def _unit(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True):
    return ConvModule(
        before,
        after,
        kernel,
        stride,
        kernel // 2,
        groups=groups,
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='HSwish') if act else None,
    )


class PatchEmbed(nn.Module):
    """Depthwise 3x3, then 1x1 with norm."""

    def __init__(self, dims: int, stride: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dims, dims, 3, stride, 1, groups=dims, bias=False)
        self.pwconv = _unit(dims, dims, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Embed ``(B, C, H, W)``."""
        return self.pwconv(self.dwconv(maps))


class Local(nn.Module):
    """Residual bottleneck."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.conv1 = _unit(dims, dims, 1)
        self.dwconv = _unit(dims, dims, 3, groups=dims)
        self.conv2 = _unit(dims, dims, 1, act=False)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        return maps + self.conv2(self.dwconv(self.conv1(maps)))


class PositionEncoding(nn.Module):
    """Depthwise convolution of the tokens, added to them."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dims, dims, 3, padding=1, groups=dims)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """``(B, N, C)`` to the same shape."""
        batch, _, dims = tokens.shape
        maps = tokens.transpose(1, 2).reshape(batch, dims, height, width)
        maps = self.proj(maps) + maps
        return maps.flatten(2).transpose(1, 2)


class RelativeEncoding(nn.Module):
    """Depthwise convolutions of the values, one window per group of heads."""

    def __init__(self, dims: int, heads: int, windows: dict[int, int]) -> None:
        super().__init__()
        self.splits = [count * dims // heads for count in windows.values()]
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
            for kernel, width in zip(windows, self.splits, strict=True)
        )

    def forward(self, query: Tensor, value: Tensor, height: int, width: int) -> Tensor:
        """Both ``(B, heads, N, d)``; so is the result."""
        batch, heads, count, dims = value.shape
        maps = value.transpose(2, 3).reshape(batch, heads * dims, height, width)
        groups = maps.split(self.splits, dim=1)
        maps = torch.cat([conv(g) for conv, g in zip(self.convs, groups, strict=True)], dim=1)
        encoded = maps.reshape(batch, heads, dims, count).transpose(2, 3)
        return query * encoded


class Attention(nn.Module):
    """Factorized attention, head by head."""

    def __init__(self, dims: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dims, 3 * dims)
        self.proj = nn.Linear(dims, dims)

    def forward(self, tokens: Tensor, height: int, width: int, crpe: RelativeEncoding) -> Tensor:
        """``(B, N, C)`` to the same shape."""
        batch, count, dims = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, dims // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, N, d) each
        context = key.softmax(dim=2).transpose(2, 3) @ value
        attended = (dims // self.heads) ** -0.5 * (query @ context)
        attended = attended + crpe(query, value, height, width)
        return self.proj(attended.transpose(1, 2).reshape(batch, count, dims))


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, dims: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dims, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dims)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` to the same shape."""
        return self.fc2(self.act(self.fc1(tokens)))


class Layer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, dims: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dims, eps=1e-6)
        self.attn = Attention(dims, heads)
        self.norm2 = nn.LayerNorm(dims, eps=1e-6)
        self.mlp = Mlp(dims, ratio * dims)

    def forward(
        self, tokens: Tensor, height: int, width: int, cpe: nn.Module, crpe: nn.Module
    ) -> Tensor:
        """``(B, N, C)`` to the same shape."""
        tokens = cpe(tokens, height, width)
        tokens = tokens + self.attn(self.norm1(tokens), height, width, crpe)
        return tokens + self.mlp(self.norm2(tokens))


class Path(nn.Module):
    """Layers that share their position encodings."""

    def __init__(self, dims: int, arch: dict, layers: int) -> None:
        super().__init__()
        self.cpe = PositionEncoding(dims)
        self.crpe = RelativeEncoding(dims, arch['num_heads'], arch['window_heads'])
        self.layers = nn.ModuleList(
            Layer(dims, arch['num_heads'], arch['mlp_ratio']) for _ in range(layers)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        batch, dims, height, width = maps.shape
        tokens = maps.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, height, width, self.cpe, self.crpe)
        return tokens.transpose(1, 2).reshape(batch, dims, height, width)


class Stage(nn.Module):
    """Patch embeddings, paths, local branch, aggregation."""

    def __init__(self, arch: dict, index: int, after: int) -> None:
        super().__init__()
        dims, paths = arch['embed_dims'][index], arch['num_paths'][index]
        self.patch_embeds = nn.ModuleList(
            PatchEmbed(dims, 2 if index > 0 and path == 0 else 1) for path in range(paths)
        )
        self.local = Local(dims)
        self.paths = nn.ModuleList(
            Path(dims, arch, arch['num_layers'][index]) for _ in range(paths)
        )
        self.aggregate = _unit((paths + 1) * dims, after, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, D, H, W)`` to the width of the next stage."""
        embedded = []
        for embed in self.patch_embeds:
            maps = embed(maps)
            embedded.append(maps)
        branches = [path(maps) for path, maps in zip(self.paths, embedded, strict=True)]
        return self.aggregate(torch.cat([self.local(embedded[0]), *branches], dim=1))


@MODELS.register_module()
class ContiguousMPViT(BaseModule):
    """MPViT on contiguous maps.

    Args:
        arch: Name of a published arch, or a dict of its entries.
        out_indices: Stages whose outputs are returned.
        ignored: Arguments of our backbone that do not matter here.
    """

    def __init__(
        self, arch: str | dict = 'small', out_indices: Sequence[int] = (1, 2, 3), **ignored: object
    ) -> None:
        super().__init__()
        arch = {**ARCH_DEFAULTS, **(ARCHS[arch] if isinstance(arch, str) else arch)}
        dims = arch['embed_dims']
        self.out_indices = out_indices
        self.stem = nn.Sequential(_unit(3, dims[0] // 2, 3, 2), _unit(dims[0] // 2, dims[0], 3, 2))
        self.stages = nn.ModuleList(
            Stage(arch, i, (*dims[1:], dims[-1])[i]) for i in range(max(out_indices) + 1)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Contiguous feature maps of images ``(B, 3, H, W)``."""
        maps = self.stem(images)
        outputs = []
        for index, stage in enumerate(self.stages):
            maps = stage(maps)
            if index in self.out_indices:
                outputs.append(maps)
        return tuple(outputs)
