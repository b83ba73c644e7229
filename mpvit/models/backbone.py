"""What the backbones share: arches, checked arguments, frozen stages, initialisation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mpvit.models.lean import use_lean_layers

ConfigDict = dict[str, Any]


class Backbone(BaseModule):
    """Base of a backbone of stages; the constructor of a subclass ends with `_finish`.

    Args:
        available: Stages that the arch has.
        out_indices: Stages whose outputs are returned, counted from 0. Stages after the last of
            them are not built unless ``num_stages`` asks for them.
        num_stages: Stages to build; None for as many as ``out_indices`` needs.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        norm_eval: Keep batch norm statistics fixed while training.
        drop_path_rate: Largest rate of stochastic depth, in [0, 1).
        init_cfg: mmengine initialisation, usually ``dict(type='Pretrained', checkpoint=...)``.
            None initialises from scratch as published.

    Attributes:
        num_stages: Stages that are built.

    Raises:
        ValueError: An argument is out of range.
    """

    stages: nn.ModuleList
    #: Name of the module before the layers of the first stage.
    _stem: str

    def __init__(
        self,
        available: int,
        out_indices: Sequence[int] = (1, 2, 3),
        num_stages: int | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        drop_path_rate: float = 0.0,
        init_cfg: ConfigDict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        limit = available if num_stages is None else num_stages
        if limit > available:
            raise ValueError(f'{limit} stages asked for, but the arch has only {available}')
        self.out_indices = tuple(out_indices)
        if not self.out_indices or not all(0 <= i < limit for i in self.out_indices):
            raise ValueError(f'out_indices {self.out_indices} must lie in [0, {limit})')
        self.num_stages = max(self.out_indices) + 1 if num_stages is None else num_stages
        if not -1 <= frozen_stages <= self.num_stages:
            raise ValueError(
                f'frozen_stages must lie in [-1, {self.num_stages}], got {frozen_stages}'
            )
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate must lie in [0, 1), got {drop_path_rate}')
        self.frozen_stages = frozen_stages
        self.drop_path_rate = drop_path_rate
        self.norm_eval = norm_eval

    def init_weights(self) -> None:
        """Initialise from scratch as published, or from ``init_cfg`` where one is given."""
        if self.init_cfg is None and not self.is_init:
            self._init_from_scratch()
        super().init_weights()

    def train(self, mode: bool = True) -> 'Backbone':
        """Switch mode, keeping frozen stages (and, with ``norm_eval``, all norms) in eval mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _init_from_scratch(self) -> None:
        """Set all weights as published."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Freeze what is to be frozen, and make the layers fast."""
        for module in self._frozen_modules():
            module.requires_grad_(False)
        use_lean_layers(self)

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.get_submodule(self._stem), *self.stages[: self.frozen_stages]]


@torch.no_grad()
def small_maps(backbone: nn.Module) -> tuple[torch.Tensor, ...]:
    """Maps ``(1, channels, height, width)`` of a black image of 64 x 64 pixels."""
    training = backbone.training
    try:
        maps: tuple[torch.Tensor, ...] = backbone.eval()(torch.zeros(1, 3, 64, 64))
    finally:
        backbone.train(training)
    return maps


def output_channels(backbone: nn.Module) -> list[int]:
    """Channels of the maps that any backbone gives, found by running it on a small image."""
    return [features.shape[1] for features in small_maps(backbone)]


def resolve_arch(
    kind: str,
    arch: str | ConfigDict,
    archs: Mapping[str, ConfigDict],
    defaults: ConfigDict,
    per_stage: Sequence[str],
) -> ConfigDict:
    """Complete and check an arch; every error says which entry is wrong.

    Args:
        kind: Name of the backbone, for messages.
        arch: Name of a published arch, or a dict with the same entries.
        archs: Published arches by name.
        defaults: Entries that an arch may leave out.
        per_stage: Entries that hold one value per stage, ``embed_dims`` first.

    Returns:
        All entries; those of ``per_stage`` are tuples of one length.

    Raises:
        ValueError: The arch is unknown or inconsistent.
    """
    if isinstance(arch, str):
        if arch not in archs:
            raise ValueError(f'unknown {kind} arch {arch!r}; choose from {sorted(archs)} or a dict')
        arch = archs[arch]
    known = {*defaults, *next(iter(archs.values()))}
    full = {**defaults, **arch}
    if full.keys() != known:
        raise ValueError(
            f'a custom {kind} arch has the entries {sorted(known)}, got {sorted(arch)}'
        )
    stages = len(full['embed_dims'])
    for key in per_stage:
        # a default is as long as the published arches; a shorter custom one takes its beginning
        full[key] = tuple(full[key]) if key in arch else tuple(full[key])[:stages]
    lengths = [len(full[key]) for key in per_stage]
    if set(lengths) != {stages}:
        raise ValueError(
            f'{kind} arch: {", ".join(per_stage)} need one entry per stage, got {lengths}'
        )
    _check_heads(kind, full)
    return full


def _check_heads(kind: str, full: ConfigDict) -> None:
    heads = full['num_heads']
    if any(width % heads for width in full['embed_dims']):
        raise ValueError(
            f'{kind} arch: every width of embed_dims {full["embed_dims"]} must be divisible by '
            f'num_heads {heads}'
        )
    # mmengine configs turn the keys of a dict written in JSON or on the command line into strings
    windows = {int(kernel): count for kernel, count in full['window_heads'].items()}
    if sum(windows.values()) != heads or any(kernel % 2 == 0 for kernel in windows):
        raise ValueError(
            f'{kind} arch: window_heads {windows} must map odd kernel sizes to heads that add up '
            f'to num_heads {heads}'
        )
    full['window_heads'] = windows
