"""Where the weights come from that the backbone of a training starts with."""

from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import nn

from mpvit.checkpoints.published import PREFIX, entry_of, fetch
from mpvit.checkpoints.reading import check_file
from mpvit.config.stored import config_name
from mpvit.engine.run_folder import candidates
from mpvit.errors import UserError
from mpvit.files.paths import existing_checkpoint

_WAYS = (
    'name other weights with --pretrained FILE|URL|NAME; train them (docs/pretrain.md); or start '
    'from random numbers with --from-scratch, which does not lead to the published AP'
)


def set_initial_weights(
    cfg: Config, pretrained: str | None = None, from_scratch: bool = False
) -> str | None:
    """Have the backbone start from other weights than the config says.

    Args:
        cfg: Config of a training, changed in place.
        pretrained: A file, a URL or ``mpvit://NAME``; None to leave it as it is.
        from_scratch: Start from random numbers.

    Returns:
        A warning if the recipe is not made for that.

    Raises:
        UserError: The model has no backbone.
    """
    if not (pretrained or from_scratch):
        return None
    backbone = _backbone(cfg)
    if backbone is None:
        raise UserError(f'{config_name(cfg)} has no model.backbone to choose weights for')
    planned = _pretrained(backbone)
    backbone.pop('pretrained', None)  # of TimmBackbone
    backbone.init_cfg = ConfigDict(type='Pretrained', checkpoint=pretrained) if pretrained else None
    if from_scratch and planned:
        return (
            f'Backbone {backbone.type}: from random numbers. This recipe is made for ImageNet '
            f'weights ({planned}) and trains the backbone slowly: expect an AP far below the '
            'published one. docs/pretrain.md says how to train ImageNet weights.'
        )
    return None


def initial_weights(cfg: Config) -> str | None:
    """What the backbone starts from, as a line for the log; the file is at hand afterwards.

    None if the model has no backbone, or its config initialises it otherwise.

    Raises:
        UserError: The weights cannot be had; with the ways to go on.
    """
    backbone = _backbone(cfg)
    if backbone is None:
        return None
    whole, source = whole_model(cfg), _pretrained(backbone)
    if whole is not None:
        return f'Backbone {backbone.type}: from {whole}.'
    if source is None and backbone.type == 'TimmBackbone' and backbone.get('pretrained'):
        return f"Backbone {backbone.type}: from timm's weights of {backbone.name}."
    if source is None:
        given = backbone.get('init_cfg')
        return None if given else f'Backbone {backbone.type}: from random numbers.'
    if not source.startswith(PREFIX):
        existing_checkpoint(source)
        if '://' not in source:
            check_file(Path(source))
        return f'Backbone {backbone.type}: from {source}.'
    entry = entry_of(source)
    try:
        path = fetch(entry)
    except UserError as error:
        raise UserError(f'no weights to start the backbone from: {error}; {_WAYS}') from error
    return f'Backbone {backbone.type}: from {entry.name}, {entry.model}, in {path}.'


def whole_model(cfg: Config) -> str | None:
    """The checkpoint that gives all weights of a model, its backbone's too; None if none does."""
    if cfg.get('resume') == 'auto' and candidates(cfg.work_dir):
        return 'the checkpoint that is resumed'
    return f'the checkpoint {cfg.load_from}' if cfg.get('load_from') else None


def has_trained_backbone(cfg: Config) -> bool:
    """Whether a backbone starts from weights, its own or those of a whole model."""
    backbone = _backbone(cfg)
    if whole_model(cfg) is not None or backbone is None:
        return whole_model(cfg) is not None
    return bool(_pretrained(backbone) or backbone.get('pretrained'))


def leave_to_checkpoint(model: nn.Module) -> None:
    """Keep a built model from looking for the weights of its backbone, which a checkpoint has."""
    backbone: Any = getattr(model, 'backbone', None)
    if backbone is not None:
        backbone.init_cfg = None


def _backbone(cfg: Config) -> ConfigDict | None:
    model = cfg.model.get('module', cfg.model)
    backbone = model.get('backbone')
    return backbone if isinstance(backbone, ConfigDict) else None


def _pretrained(backbone: ConfigDict) -> str | None:
    given: Any = backbone.get('init_cfg')
    if isinstance(given, dict) and given.get('type') == 'Pretrained':
        return given.get('checkpoint')
    return None
