"""CoaT: Co-Scale Conv-Attentional Image Transformers (Xu et al., ICCV 2021), from timm's blocks.

The blocks are those of ``timm.models.coat`` (Apache-2.0); this file puts them together for
detection. Where height and width of an image are multiples of 32, timm's whole `CoaT` equals the
published model bit for bit in float32 on a CPU; this file is within 2.1e-6 of the largest
activation, odd sizes included (4e-15 in float64). timm's class could not be used whole, because:

* It takes one fixed image size. Here any size goes; each stage floors.
* Its parallel blocks resize by the factors 2 and 4, so scales whose sizes are not multiples of
  each other cannot be added up (at 203x251, stage 2 is 25x31 and twice stage 3 is 24x30). Here,
  as published, every scale is resized directly to the grid of the other.
* It registers shared modules again in every block that uses them, so its state dict has 372 names
  for 244 tensors (lite_small) or 536 for 316 (small), and mmengine's optimizer constructor fails
  on parameters that it meets again. Here each is registered once.
* Its blocks by themselves have norms of eps 1e-5; published are 1e-6 (and 1e-5 in patch
  embeddings).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmdet.registry import MODELS
from timm.layers import PatchEmbed, trunc_normal_
from timm.models.coat import ConvPosEnc, ConvRelPosEnc, ParallelBlock, SerialBlock
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mpvit.models.backbone import Backbone, ConfigDict, resolve_arch
from mpvit.models.layers import LAYER_NORM_EPS, run, to_map, to_tokens

# Published variants: width, serial layers and MLP ratio of each stage; parallel layers over the
# stages 2 to 4. The lite ones have no parallel layers.
ARCHS: dict[str, dict[str, Any]] = {
    'lite_small': dict(
        embed_dims=(64, 128, 320, 512),
        num_layers=(3, 4, 6, 3),
        mlp_ratios=(8, 8, 4, 4),
        parallel_layers=0,
    ),
    'small': dict(
        embed_dims=(152, 320, 320, 320),
        num_layers=(2, 2, 2, 2),
        mlp_ratios=(4, 4, 4, 4),
        parallel_layers=6,
    ),
}
# What the published variants share; a custom arch may override any of it.
ARCH_DEFAULTS: dict[str, Any] = dict(
    parallel_layers=0, num_heads=8, window_heads={3: 2, 5: 3, 7: 3}
)
Size = tuple[int, int]
#: Norm of the layers; that of patch embeddings has PyTorch's eps, 1e-5.
BlockNorm: Any = partial(nn.LayerNorm, eps=LAYER_NORM_EPS)


def _resolve_arch(arch: str | ConfigDict) -> ConfigDict:
    """Complete and check an arch, parallel layers included."""
    full = resolve_arch(
        'CoaT', arch, ARCHS, ARCH_DEFAULTS, ('embed_dims', 'num_layers', 'mlp_ratios')
    )
    dims, ratios = full['embed_dims'], full['mlp_ratios']
    uniform = len(dims) == 4 and len({*dims[1:]}) == len({*ratios[1:]}) == 1
    if full['parallel_layers'] and not uniform:
        raise ValueError(
            'CoaT arch: parallel_layers need four stages of which the last three have one width '
            f'and one MLP ratio, got embed_dims {dims} and mlp_ratios {ratios}'
        )
    return full


class CoaTStage(nn.Module):
    """Patch embedding, class token, serial layers that share one pair of position encodings."""

    def __init__(self, arch: ConfigDict, index: int, drop_path_rate: float, with_cp: bool) -> None:
        super().__init__()
        self.with_cp = with_cp
        dims, num_heads = arch['embed_dims'][index], arch['num_heads']
        self.stride = 4 if index == 0 else 2
        self.patch_embed = PatchEmbed(
            img_size=None,  # any
            patch_size=self.stride,
            in_chans=3 if index == 0 else arch['embed_dims'][index - 1],
            embed_dim=dims,
            norm_layer=nn.LayerNorm,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims))
        self.cpe = ConvPosEnc(dims)
        self.crpe = ConvRelPosEnc(dims // num_heads, num_heads, arch['window_heads'])
        self.layers = nn.ModuleList(
            SerialBlock(
                dims,
                num_heads,
                arch['mlp_ratios'][index],
                qkv_bias=True,
                drop_path=drop_path_rate,
                norm_layer=BlockNorm,
                # a bound method is not registered again, as the module itself would be
                shared_cpe=self.cpe.__call__,
                shared_crpe=self.crpe.__call__,
            )
            for _ in range(arch['num_layers'][index])
        )

    def forward(self, maps: Tensor) -> tuple[Tensor, Size]:
        """Embed and transform a map.

        Args:
            maps: Image or output of the stage before, shape ``(B, C, H, W)``.

        Returns:
            Tokens ``(B, 1 + h * w, D)``, class token first, and their grid ``(h, w)``, where
            ``h = H // stride`` and ``w = W // stride``.
        """
        size = (maps.size(2) // self.stride, maps.size(3) // self.stride)
        tokens = self.patch_embed(maps)  # (B, h * w, D)
        tokens = torch.cat([self.cls_token.expand(tokens.size(0), -1, -1), tokens], dim=1)
        for layer in self.layers:
            tokens = run(layer, tokens, size, with_cp=self.with_cp)
        return tokens, size


class ParallelLayer(ParallelBlock):
    """timm's parallel block for grids of any size, with its shared MLP registered once.

    It shares the position encodings of ``stages``, which are 2, 3 and 4 and have the same width.
    """

    def __init__(
        self, arch: ConfigDict, stages: Sequence[CoaTStage], drop_path_rate: float
    ) -> None:
        crpes = [None, *(stage.crpe.__call__ for stage in stages)]  # there is none for stage 1
        super().__init__(
            [arch['embed_dims'][1]] * 4,
            arch['num_heads'],
            [arch['mlp_ratios'][1]] * 4,
            qkv_bias=True,
            drop_path=drop_path_rate,
            norm_layer=BlockNorm,
            shared_crpes=crpes,
        )
        del self.mlp3, self.mlp4  # other names of mlp2
        self.cpes = [stage.cpe.__call__ for stage in stages]

    def forward(  # type: ignore[override]  # stage 1 passes by, it is left out
        self, tokens: list[Tensor], sizes: list[Size]
    ) -> list[Tensor]:
        """Attend within each of the stages 2, 3 and 4, then add up the three scales.

        Args:
            tokens: Of each stage, class token first, shape ``(B, 1 + H * W, D)``.
            sizes: Grids ``(H, W)``.

        Returns:
            Tokens of the same shapes.
        """
        first_norms = self.norm12, self.norm13, self.norm14
        attentions = self.factoratt_crpe2, self.factoratt_crpe3, self.factoratt_crpe4
        second_norms = self.norm22, self.norm23, self.norm24

        tokens = [cpe(x, size) for cpe, x, size in zip(self.cpes, tokens, sizes, strict=True)]
        attended = [
            attention(norm(x), size)
            for norm, attention, x, size in zip(first_norms, attentions, tokens, sizes, strict=True)
        ]
        # class tokens are added up as they are, (B, 1, D); maps (B, D, H, W) after resizing
        class_token = sum(x[:, :1] for x in attended)
        maps = [to_map(x[:, 1:], size) for x, size in zip(attended, sizes, strict=True)]
        outputs = []
        for own, norm, x, size in zip(maps, second_norms, tokens, sizes, strict=True):
            total = own
            for other in maps:
                if other is not own:
                    total = total + interpolate(other, size, mode='bilinear', align_corners=False)
            x = x + self.drop_path(torch.cat([class_token, to_tokens(total)], dim=1))
            outputs.append(x + self.drop_path(self.mlp2(norm(x))))
        return outputs


@MODELS.register_module()
class CoaT(Backbone):
    """CoaT or CoaT-Lite backbone with outputs of stride 4, 8, 16 and 32.

    Outputs have no norm and no class token; classification norms and heads do not exist. Any
    input size from 32 px works; each stage floors. Stage ``s`` has the width ``embed_dims[s]``
    (`out_channels`).

    Args:
        arch: 'lite_small', 'small', or a dict with ``embed_dims``, ``num_layers`` and
            ``mlp_ratios`` (see `ARCHS`) and optionally ``parallel_layers``, ``num_heads`` and
            ``window_heads`` (see `ARCH_DEFAULTS`).
        with_cp: Recompute the activations of the layers in the backward pass to save memory.
        **options: Those of `Backbone`. With parallel layers the ``out_indices`` 1, 2 and 3 belong
            together and must all be there. The stem of ``frozen_stages`` is the first patch
            embedding; position encodings of a frozen stage are frozen in the parallel layers too.
            ``drop_path_rate`` is the same in every layer; published detectors have 0.2 for small
            and 0 for lite_small.

    Raises:
        ValueError: An argument is out of range or an arch is inconsistent.
    """

    _stem = 'stages.0.patch_embed'

    def __init__(
        self, arch: str | ConfigDict = 'lite_small', with_cp: bool = False, **options: Any
    ) -> None:
        full = _resolve_arch(arch)
        dims = full['embed_dims']
        super().__init__(len(dims), **options)
        if full['parallel_layers'] and not {1, 2, 3} <= {*self.out_indices}:
            # what computes only the others would never get a gradient
            raise ValueError(
                f'out_indices {self.out_indices} must contain 1, 2 and 3: the parallel layers '
                'compute them together'
            )
        self.with_cp = with_cp
        #: Channels of each stage's output.
        self.out_channels = tuple(dims)[: self.num_stages]
        rate = self.drop_path_rate
        stages = [CoaTStage(full, i, rate, with_cp) for i in range(self.num_stages)]
        self.stages = nn.ModuleList(stages)
        self.parallel_layers = nn.ModuleList(
            ParallelLayer(full, stages[1:], rate) for _ in range(full['parallel_layers'])
        )
        self._finish()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of a batch of images.

        Args:
            images: Normalised RGB images, zero-padded to one size, shape ``(B, 3, H, W)``.

        Returns:
            One channels-last map per entry of ``out_indices``, in ascending order of stage.

        Raises:
            ValueError: The images are smaller than the stride of the last stage.
        """
        stride = 4 * 2 ** (len(self.stages) - 1)
        if min(images.shape[2:]) < stride:
            raise ValueError(
                f'images of {tuple(images.shape[2:])} px are too small for CoaT: '
                f'{stride} px a side at least'
            )
        tokens, sizes = [], []
        maps = images.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x, size = stage(maps)
            maps = to_map(x[:, 1:], size)  # (B, D, h, w), without the class token
            tokens.append(x)
            sizes.append(size)
        for layer in self.parallel_layers:
            tokens[1:] = run(layer, tokens[1:], sizes[1:], with_cp=self.with_cp)
        return tuple(
            to_map(tokens[index][:, 1:], sizes[index]).contiguous(memory_format=torch.channels_last)
            for index in sorted({*self.out_indices})
        )

    def _init_from_scratch(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, CoaTStage):
                trunc_normal_(module.cls_token, std=0.02)
