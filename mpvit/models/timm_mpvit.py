"""MPViT in timm's registry: ``timm.create_model('mpvit_small')`` after this module is imported.

`mpvit.register` imports it too, and with it ``mpvit run train.py --model mpvit_small`` runs timm's
own scripts. The weights of an official ImageNet file, of a classifier that was trained here or of
timm load as they are: ``checkpoint_path=FILE``, or for the backbone alone ``features_only=True,
pretrained=True, pretrained_cfg_overlay=dict(file=FILE)``. There is no file to download.
"""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from mpvit.checkpoints.conversion import to_ours
from mpvit.checkpoints.formats import weights_of
from mpvit.models.mpvit import MPViT, TransformerPath

__all__ = ['TimmMPViT', 'own_names']


class TimmMPViT(nn.Module):
    """The backbone with all four stages and a linear head, with what timm asks of a model.

    Names of tensors are those of a classifier that was trained here (`configs/imagenet`).

    Args:
        arch: As for `MPViT`.
        num_classes: Outputs of the head; 0 for none.
        in_chans: Channels of the images.
        global_pool: How the last map becomes a vector, ``avg``; '' for not at all.
        drop_rate: Dropout before the head, in [0, 1).
        drop_path_rate: Rate of the deepest layer, in [0, 1).
    """

    def __init__(
        self,
        arch: str | dict[str, Any] = 'small',
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = MPViT(
            arch, dict(type='BN'), out_indices=(0, 1, 2, 3), drop_path_rate=drop_path_rate
        )
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        channels = self.backbone.out_channels
        self.num_features = self.head_hidden_size = channels[-1]
        self.feature_info = [
            dict(num_chs=width, reduction=4 * 2**stage, module=f'backbone.stages.{stage}')
            for stage, width in enumerate(channels)
        ]
        if in_chans != 3:
            first: Any = self.backbone.stem[0]
            first.conv = nn.Conv2d(in_chans, first.conv.out_channels, 3, 2, padding=1, bias=False)
        self.backbone._init_from_scratch()  # mmengine's init_weights prints every parameter
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
        if num_classes:
            trunc_normal_(self.head.fc.weight, std=0.02)
            nn.init.zeros_(self.head.fc.bias)
        self.register_load_state_dict_pre_hook(_rename)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of normalised RGB images ``(B, 3, H, W)``."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """The last map, ``(B, num_features, H / 32, W / 32)``."""
        return self.backbone(images)[-1]

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of a map, or its mean over the positions, ``(B, num_features)``."""
        return self.head(maps, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> Any:
        """Maps of chosen stages, in timm's way: a list, or the last map and the list.

        There is no norm to apply, and maps are always ``NCHW``.

        Raises:
            ValueError: Another format is asked for.
        """
        if output_fmt != 'NCHW':
            raise ValueError(f'MPViT gives maps as NCHW, not {output_fmt}')
        wanted, _ = feature_take_indices(self.backbone.num_stages, indices)
        maps = self.backbone(images)
        chosen = [maps[stage] for stage in wanted]
        return chosen if intermediates_only else (maps[-1], chosen)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last of ``indices``, and the head.

        Returns:
            The stages asked for, counted from 0.
        """
        backbone = self.backbone
        wanted, last = feature_take_indices(backbone.num_stages, indices)
        if last + 1 < backbone.num_stages:
            backbone.stages = backbone.stages[: last + 1]
            backbone.num_stages, backbone.out_indices = last + 1, tuple(range(last + 1))
            self.num_features = self.head_hidden_size = backbone.out_channels[last]
            prune_head = True  # it is as wide as the last stage
        if prune_head:
            self.reset_classifier(0, '')
        return wanted

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new linear layer in the place of the old one; 0 classes for none."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool, in_features=self.num_features)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, to save memory."""
        for module in self.modules():
            if isinstance(module, TransformerPath):
                module.with_cp = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which layer a parameter belongs to, for learning rates by layer."""
        return dict(stem=r'^backbone\.stem', blocks=r'^backbone\.stages\.(\d+)')


def own_names(weights: dict[str, Tensor], model: nn.Module | None = None) -> dict[str, Tensor]:
    """The tensors of an official file by our names; others as they are."""
    converted = to_ours(weights)
    return converted[0]['state_dict'] if converted else weights_of(weights)


def _rename(module: nn.Module, weights: dict[str, Tensor], prefix: str, *rest: Any) -> None:
    if not prefix:
        renamed = own_names(weights)
        weights.clear()
        weights.update(renamed)


default_cfgs = generate_default_cfgs(
    {
        f'mpvit_{size}': dict(
            url='',
            num_classes=1000,
            input_size=(3, 224, 224),
            pool_size=(7, 7),
            crop_pct=0.875,  # short side 256, centre 224
            interpolation='bicubic',
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
            first_conv='backbone.stem.0.conv',
            classifier='head.fc',
            paper_ids='arXiv:2112.11010',
            paper_name='MPViT: Multi-Path Vision Transformer for Dense Prediction',
        )
        for size in ('tiny', 'xsmall', 'small', 'base')
    }
)


def _create(variant: str, pretrained: bool, **options: Any) -> nn.Module:
    return build_model_with_cfg(
        TimmMPViT,
        variant,
        pretrained,
        pretrained_filter_fn=own_names,
        feature_cfg=dict(out_indices=(0, 1, 2, 3), feature_cls='getter'),
        arch=variant.removeprefix('mpvit_'),
        **options,
    )


@register_model
def mpvit_tiny(pretrained: bool = False, **options: Any) -> nn.Module:
    """MPViT-Tiny; 78.2 top-1 as published."""
    return _create('mpvit_tiny', pretrained, **options)


@register_model
def mpvit_xsmall(pretrained: bool = False, **options: Any) -> nn.Module:
    """MPViT-XSmall; 80.9 top-1 as published."""
    return _create('mpvit_xsmall', pretrained, **options)


@register_model
def mpvit_small(pretrained: bool = False, **options: Any) -> nn.Module:
    """MPViT-Small; 83.0 top-1 as published."""
    return _create('mpvit_small', pretrained, **options)


@register_model
def mpvit_base(pretrained: bool = False, **options: Any) -> nn.Module:
    """MPViT-Base; 84.3 top-1 as published."""
    return _create('mpvit_base', pretrained, **options)
