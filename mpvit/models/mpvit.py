"""MPViT: Multi-Path Vision Transformer for Dense Prediction (Lee et al., CVPR 2022).

Written from the paper's description and the published figures. Every stage embeds its input
with chained 3x3 patch embeddings, runs a transformer path on each of them beside a convolutional
local branch, and aggregates all of them with a 1x1 convolution.
"""

import math
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from timm.layers import trunc_normal_
from torch import Tensor, nn

from mpvit.models.backbone import Backbone, ConfigDict, resolve_arch
from mpvit.models.layers import (
    ConvPositionEncoding,
    ConvRelativePositionEncoding,
    TransformerLayer,
    drop_path_rates,
    run,
    to_map,
    to_tokens,
)

# Published variants: width inside each stage, transformer layers per path, paths, MLP ratio.
ARCHS: dict[str, dict[str, Any]] = {
    'tiny': dict(embed_dims=(64, 96, 176, 216), num_layers=(1, 2, 4, 1), mlp_ratio=2),
    'xsmall': dict(embed_dims=(64, 128, 192, 256), num_layers=(1, 2, 4, 1), mlp_ratio=4),
    'small': dict(embed_dims=(64, 128, 216, 288), num_layers=(1, 3, 6, 3), mlp_ratio=4),
    'base': dict(embed_dims=(128, 224, 368, 480), num_layers=(1, 3, 8, 3), mlp_ratio=4),
}
# What the published variants share; a custom arch may override any of it.
ARCH_DEFAULTS: dict[str, Any] = dict(
    num_paths=(2, 3, 3, 3), num_heads=8, window_heads={3: 2, 5: 3, 7: 3}
)
_ACT = dict(type='HSwish')


class PatchEmbed(nn.Module):
    """Depthwise 3x3 convolution, 1x1 convolution, norm, hard-swish."""

    def __init__(self, embed_dims: int, stride: int, norm_cfg: ConfigDict) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(
            embed_dims, embed_dims, 3, stride, padding=1, groups=embed_dims, bias=False
        )
        self.pwconv = ConvModule(embed_dims, embed_dims, 1, norm_cfg=norm_cfg, act_cfg=_ACT)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ceil(W / stride))``."""
        return self.pwconv(self.dwconv(maps))


class LocalBranch(nn.Module):
    """Residual 1x1 - depthwise 3x3 - 1x1 bottleneck without expansion."""

    def __init__(self, embed_dims: int, norm_cfg: ConfigDict) -> None:
        super().__init__()
        dims, cfg = embed_dims, dict(norm_cfg=norm_cfg, act_cfg=_ACT)
        self.conv1 = ConvModule(dims, dims, 1, **cfg)
        self.dwconv = ConvModule(dims, dims, 3, padding=1, groups=dims, **cfg)
        self.conv2 = ConvModule(dims, dims, 1, norm_cfg=norm_cfg, act_cfg=None)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        return maps + self.conv2(self.dwconv(self.conv1(maps)))


class TransformerPath(nn.Module):
    """Transformer layers on the tokens of a map; they share one pair of position encodings."""

    def __init__(self, embed_dims: int, arch: ConfigDict, rates: list[float], with_cp: bool):
        super().__init__()
        self.with_cp = with_cp
        num_heads = arch['num_heads']
        self.cpe = ConvPositionEncoding(embed_dims)
        self.crpe = ConvRelativePositionEncoding(embed_dims // num_heads, arch['window_heads'])
        self.layers = nn.ModuleList(
            TransformerLayer(embed_dims, num_heads, arch['mlp_ratio'], rate) for rate in rates
        )

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        size = (maps.size(2), maps.size(3))
        tokens = to_tokens(maps)  # (B, H * W, C)
        for layer in self.layers:
            tokens = run(layer, tokens, size, self.cpe, self.crpe, with_cp=self.with_cp)
        return to_map(tokens, size)


class MPViTStage(nn.Module):
    """Patch embeddings in a chain, a path on each, the local branch, aggregation."""

    def __init__(
        self,
        arch: ConfigDict,
        index: int,
        out_channels: int,
        rates: list[float],
        norm_cfg: ConfigDict,
        with_cp: bool,
    ) -> None:
        super().__init__()
        dims, num_paths = arch['embed_dims'][index], arch['num_paths'][index]
        strides = [1 if index == 0 or path > 0 else 2 for path in range(num_paths)]
        self.patch_embeds = nn.ModuleList(PatchEmbed(dims, stride, norm_cfg) for stride in strides)
        self.local = LocalBranch(dims, norm_cfg)
        self.paths = nn.ModuleList(
            TransformerPath(dims, arch, rates, with_cp) for _ in range(num_paths)
        )
        self.aggregate = ConvModule(
            (num_paths + 1) * dims, out_channels, 1, norm_cfg=norm_cfg, act_cfg=_ACT
        )

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, D, H, W)`` to ``(B, out_channels, H / stride, W / stride)``."""
        embedded = []
        for embed in self.patch_embeds:
            maps = embed(maps)
            embedded.append(maps)
        branches = [path(maps) for path, maps in zip(self.paths, embedded, strict=True)]
        return self.aggregate(torch.cat([self.local(embedded[0]), *branches], dim=1))


@MODELS.register_module()
class MPViT(Backbone):
    """MPViT backbone with four outputs of stride 4, 8, 16 and 32.

    Outputs have no norm. Stage ``s`` ends with the width of the next stage, so the channels of
    the outputs (`out_channels`) are ``embed_dims[1:] + embed_dims[-1:]``: small gives 128, 216,
    288, 288. Any input size works; each stride-2 step gives ``ceil(n / 2)``.

    Args:
        arch: 'tiny', 'xsmall', 'small', 'base', or a dict with ``embed_dims``, ``num_layers`` and
            ``mlp_ratio`` (see `ARCHS`) and optionally ``num_paths``, ``num_heads`` and
            ``window_heads`` (see `ARCH_DEFAULTS`).
        norm_cfg: Norm of the convolutions. SyncBN as in the official recipe; on a single process
            it is ordinary batch norm.
        with_cp: Recompute the activations of transformer layers in the backward pass to save
            memory.
        **options: Those of `Backbone`, with ``drop_path_rate`` for the deepest layer.

    Raises:
        ValueError: An argument is out of range or an arch is inconsistent.
    """

    _stem = 'stem'

    def __init__(
        self,
        arch: str | ConfigDict = 'small',
        norm_cfg: ConfigDict | None = None,
        with_cp: bool = False,
        **options: Any,
    ) -> None:
        full = resolve_arch(
            'MPViT', arch, ARCHS, ARCH_DEFAULTS, ('embed_dims', 'num_layers', 'num_paths')
        )
        dims = tuple(full['embed_dims'])
        super().__init__(len(dims), **options)
        norm_cfg = norm_cfg or dict(type='SyncBN', requires_grad=True)
        #: Channels of each stage's output.
        self.out_channels = (*dims[1:], dims[-1])[: self.num_stages]
        self.stem = nn.Sequential(
            *(
                ConvModule(before, after, 3, 2, 1, norm_cfg=norm_cfg, act_cfg=_ACT)
                for before, after in ((3, dims[0] // 2), (dims[0] // 2, dims[0]))
            )
        )
        rates = drop_path_rates(self.drop_path_rate, full['num_layers'])
        self.stages = nn.ModuleList(
            MPViTStage(full, i, self.out_channels[i], rates[i], norm_cfg, with_cp)
            for i in range(self.num_stages)
        )
        self._finish()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of a batch of images.

        Args:
            images: Normalised RGB images, zero-padded to one size, shape ``(B, 3, H, W)``.

        Returns:
            One channels-last map per entry of ``out_indices``, in ascending order of stage.
        """
        maps = self.stem(images.contiguous(memory_format=torch.channels_last))
        outputs = []
        for index, stage in enumerate(self.stages):
            maps = stage(maps)
            if index in self.out_indices:
                outputs.append(maps)
        return tuple(outputs)

    def _init_from_scratch(self) -> None:
        self.apply(_init_module)
        for module in self.modules():
            if isinstance(module, PatchEmbed):
                # the published fan-out is not divided by the groups here
                _normal_fan_out(module.dwconv, groups=1)


def _normal_fan_out(conv: nn.Conv2d, groups: int) -> None:
    fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels // groups
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))


def _init_module(module: nn.Module) -> None:
    """The published initialisation of one module; norms keep PyTorch's (weight 1, bias 0)."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, ConvModule):
        _normal_fan_out(module.conv, groups=module.conv.groups)
