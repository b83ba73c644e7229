"""Any backbone of timm that gives maps of several strides for images of any size."""

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mpvit.checkpoints.compatibility import check_fit
from mpvit.checkpoints.formats import weights_of
from mpvit.errors import UserError, did_you_mean

# Models that were trained at one size may take others if they are asked to; each family has its
# own word for it.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({'strict_img_size': False}, {'dynamic_img_size': True}, {})
_PROBE = (1, 3, 64, 96)
_OWN = 'timm'


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A model of timm without its classifier.

    Parameters stay in training mode and timm's own initialisation stays, unless the arguments say
    otherwise.

    Args:
        name: Name in timm's registry, such as ``'convnext_atto'``.
        out_indices: Which of the model's maps are returned, counted from 0 as timm counts them:
            ResNets of timm begin with one of stride 2, many others with one of stride 4.
        pretrained: Start from timm's own weights, which are downloaded when a training starts.
        frozen_stages: -1 freezes nothing, k everything up to map k.
        norm_eval: Keep batch norm statistics fixed while training.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` starts from a file of the model's
            weights in timm's format, or of this module.
        **settings: Other arguments of the model, as for `timm.create_model`.

    Attributes:
        out_channels: Channels of the maps that are returned.

    Raises:
        UserError: timm has no such model, or it is not made for this.
    """

    def __init__(
        self,
        name: str,
        out_indices: Sequence[int] = (1, 2, 3),
        pretrained: bool = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        # in init_cfg, so that whoever has a checkpoint takes it away as from any other backbone
        super().__init__(init_cfg or (dict(type=_OWN) if pretrained else None))
        if not timm.is_model(name):
            raise UserError(
                f'timm {timm.__version__} has no model {name!r}'
                f'{did_you_mean(name.split(".")[0], timm.list_models())}'
            )
        self.name, self.norm_eval = name, norm_eval
        self.settings = dict(settings, out_indices=tuple(out_indices))
        self.model = self._created()
        self.out_channels: list[int] = self.model.feature_info.channels()
        self._channels_last = str(getattr(self.model, 'output_fmt', '')).endswith('NHWC')
        self._frozen = _up_to_map(self.model, frozen_stages)
        if frozen_stages >= 0 and not self._frozen:
            raise UserError(f'frozen_stages cannot be used with {name} of timm')
        # some models keep what comes after the last map; distributed training would wait for it
        used = _up_to_map(self.model, max(self.model.feature_info.out_indices))
        for module in self.model.modules():
            if module in self._frozen or (used and module not in used and module is not self.model):
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)
        self._probe()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps ``(B, C, H / stride, W / stride)`` of images ``(B, 3, H, W)``.

        Raises:
            UserError: The model does not take images of this size.
        """
        try:
            maps = self.model(images)
        except AssertionError as error:
            height, width = images.shape[2:]
            raise UserError(
                f'{self.name} of timm does not take images of {height}x{width} ({error}); set '
                'model.data_preprocessor.pad_size_divisor to what it needs, often 32, or choose '
                'a model for images of any size'
            ) from error
        return tuple(m.permute(0, 3, 1, 2) if self._channels_last else m for m in maps)

    def init_weights(self) -> None:
        """Load the weights that were asked for; else timm's initial numbers stay.

        Raises:
            UserError: They cannot be had, or are of another model.
        """
        given = self.init_cfg or {}
        if given.get('type') == _OWN:
            try:
                self.model.load_state_dict(self._created(pretrained=True).state_dict())
            except UserError as error:
                raise UserError(
                    f'{error}; --pretrained FILE takes weights in the format of timm, '
                    '--from-scratch starts without'
                ) from error
        elif given.get('type') == 'Pretrained' and 'prefix' not in given:
            checkpoint = CheckpointLoader.load_checkpoint(given['checkpoint'], 'cpu')
            expected = self.model.state_dict()
            found = _renamed(weights_of(checkpoint), expected)
            try:
                check_fit(found, expected, advice=f'init_cfg needs weights of {self.name}')
            except UserError as error:
                raise UserError(f'{given["checkpoint"]}: {error}') from error
            self.model.load_state_dict(found)
        else:
            super().init_weights()

    def train(self, mode: bool = True) -> 'TimmBackbone':
        """Switch mode, keeping what is frozen (and, with ``norm_eval``, all norms) in eval mode."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _created(self, pretrained: bool = False) -> Any:
        fixed = getattr(timm.get_pretrained_cfg(self.name), 'fixed_input_size', False)
        reason: Exception | None = None
        for words in _ANY_SIZE if fixed else ({},):
            settings: dict[str, Any] = {**words, **self.settings}
            try:
                return timm.create_model(
                    self.name, features_only=True, pretrained=pretrained, **settings
                )
            except TypeError as error:
                reason = error  # a family that does not know the word, or the user's own
            except Exception as error:
                reason = error
                break
        raise UserError(f'timm model {self.name} with {self.settings}: {reason}') from reason

    @torch.no_grad()
    def _probe(self) -> None:
        """Refuse at once what would fail at the first image."""
        training = self.training
        try:
            self.eval()(torch.zeros(_PROBE))
        except UserError as error:
            raise UserError(
                f'{self.name} of timm takes images of one size only, which a detector cannot use '
                f'({error.__cause__}); choose another model'
            ) from error
        self.train(training)


def _up_to_map(model: Any, index: int) -> list[nn.Module]:
    """Modules before and inside of the one that gives a map; none if there is no such module."""
    if index < 0:
        return []
    maps = model.feature_info.info
    if index >= len(maps):
        raise UserError(f'frozen_stages {index}: the model has the maps 0 to {len(maps) - 1}')
    place = maps[index]['module']
    # timm renames what it takes out of a model
    names = (place, place.replace('.', '_'), f'model.{place}')
    before, inside = [], []
    for name, module in model.named_modules():
        if any(f'{name}.'.startswith(f'{known}.') for known in names):
            inside.append(module)
        elif inside:
            break
        elif name:
            before.append(module)
    return before + inside if inside else []


def _renamed(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a whole model of timm by the names of the parts that are taken out of it.

    Parts of parts, such as ``stages.0``, are called ``stages_0`` there. What is not expected, the
    classifier and what comes after the last map, is left out.
    """
    parts = {name.split('.')[0] for name in expected}
    found = {}
    for name, value in weights.items():
        first, *rest = name.split('.')
        together = '_'.join([first, *rest[:1]])
        choices = ['.'.join([together, *rest[1:]])] if together in parts else []
        choices += [name, f'model.{name}', name.removeprefix('model.')]
        found.update({choice: value for choice in choices if choice in expected})
    return found
