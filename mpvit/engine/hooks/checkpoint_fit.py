"""What stands between a checkpoint that was read and a model that loads it."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from mpvit.checkpoints.class_layers import (
    CLASS_LAYERS,
    class_names,
    refines_boxes,
    remap_classes,
    with_queries,
)
from mpvit.checkpoints.compatibility import WeightsError, add_neck_biases, check_fit
from mpvit.checkpoints.formats import weights_of
from mpvit.config.stored import own_config_hint
from mpvit.engine.hooks import detector_of
from mpvit.engine.optimizer import KERNELS
from mpvit.engine.resumable import check_resume, single_optimizer
from mpvit.errors import UserError, listed

_LOAD_FROM = 'start a new training from its weights with --cfg-options load_from=FILE instead'
_RESUMABLE = ('meta', 'message_hub', 'optimizer')


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Refuses a checkpoint whose tensors are not those of the model.

    mmengine loads what matches and goes on with random numbers for the rest, which shows as an
    AP of 0 much later. Only the class layers may differ, in a training that starts from
    ``load_from``: classes of the same name keep their weights, others are trained from scratch,
    and a line says so; and a DINO may have more queries. What cannot be resumed is refused.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare a checkpoint that was read with the model, before it is loaded.

        Raises:
            UserError: Tensors are missing, unexpected or of another shape, or a training cannot
                be resumed from it.
        """
        model = detector_of(runner)
        training = isinstance(runner._train_loop, BaseLoop)  # `train_loop` would build it
        if training and runner._resume:
            _refuse_weights_alone(checkpoint)
            check_resume(runner, checkpoint, runner._load_from or 'that is resumed')
        if not runner._resume and (line := add_neck_biases(checkpoint, model.state_dict())):
            runner.logger.info(line)
        # fine-tuning may be for other classes; a resumed or tested model may not
        classes = _classes_of(runner._train_loop if training else runner._test_loop)
        if training and runner._resume:
            _check_classes(checkpoint, classes)
        elif training:
            queries = getattr(model, 'num_queries', 0)
            checkpoint['state_dict'] = with_queries(weights_of(checkpoint), queries)
            line = _match_classes(checkpoint, model.state_dict(), classes)
            if line:
                runner.logger.warning(line)
        elif None not in (classes, old := class_names(checkpoint)) and classes != old:
            runner.logger.warning('The checkpoint names other classes than the test set.')
        if training:
            check_fit(checkpoint, model.state_dict())
            if runner._resume:
                fit_optimizer_state(checkpoint, single_optimizer(runner))
        else:
            try:
                check_loadable(checkpoint, model)
            except UserError as error:
                fits = isinstance(error, WeightsError)
                hint = '' if fits else own_config_hint(runner._load_from, runner.cfg)
                raise UserError(f'{error}{hint}') from error


def check_loadable(checkpoint: Mapping[str, Any], model: nn.Module) -> None:
    """Make sure that a checkpoint is of a detector, before it is used for detecting.

    Raises:
        UserError: Tensors are missing, unexpected or of another shape, or only one of the two
            refines boxes.
    """
    check_fit(checkpoint, model.state_dict())
    refine = getattr(model, 'with_box_refine', False) and not getattr(model, 'as_two_stage', False)
    if refine and not refines_boxes(weights_of(checkpoint)):
        raise UserError(
            'the checkpoint is of another model than the config: it has one box layer for all '
            'decoder layers and the config refines boxes (model.with_box_refine)'
        )


def _classes_of(loop: Any) -> list[str] | None:
    if not isinstance(loop, BaseLoop):
        return None
    classes = getattr(loop.dataloader.dataset, 'metainfo', {}).get('classes')
    return None if classes is None else list(classes)


def _refuse_weights_alone(checkpoint: Mapping[str, Any]) -> None:
    missing = [key for key in _RESUMABLE if key not in checkpoint]
    if missing:
        raise UserError(
            'cannot resume: the checkpoint holds weights only, without the state of a training '
            f'({", ".join(missing)} missing); {_LOAD_FROM}'
        )


def _check_classes(checkpoint: dict[str, Any], classes: list[str] | None) -> None:
    old = class_names(checkpoint)
    if None not in (old, classes) and old != classes:
        raise UserError(
            f'cannot resume: the checkpoint was trained on other classes ({listed(old or [])}); '
            f'{_LOAD_FROM}'
        )
    # a config as source code; mmengine would execute it to look for an entry long obsolete
    checkpoint['meta'].pop('config', None)


def _match_classes(
    checkpoint: dict[str, Any], model: Mapping[str, Tensor], classes: list[str] | None
) -> str | None:
    """Bring the class layers of a checkpoint to the model's classes; the line that says so."""
    weights = weights_of(checkpoint)
    layers = [name for name in model if name.startswith(CLASS_LAYERS)]
    if not layers or any(name not in weights for name in layers):
        return None  # for the check that follows to tell
    rows, wanted = len(weights[layers[0]]), len(model[layers[0]])
    old = class_names(checkpoint)
    old = old if old is not None and len(old) == rows else None
    new = classes if classes is not None and len(classes) == wanted else None
    if rows == wanted and (old == new or old is None or new is None):
        return None
    checkpoint['state_dict'], kept = remap_classes(weights, model, old, new)
    if not kept:
        return f'Class layers: all {wanted} classes start from scratch ({rows} in the checkpoint).'
    fresh = [name for name in new or () if name not in kept]
    return (
        f'Class layers: {len(kept)} of {wanted} classes keep their weights by name '
        f'({listed(kept)}); {len(fresh)} start from scratch ({listed(fresh) or "none"}).'
    )


def fit_optimizer_state(
    checkpoint: Mapping[str, Any], optimizer: torch.optim.Optimizer | None
) -> None:
    """Have the optimizer state of a checkpoint go on with the kernels of the optimizer.

    They may be others, since a run may go on on another device. The state is changed in place.

    Args:
        checkpoint: As it was read.
        optimizer: The one that resumes; None if it is not a single one.

    Raises:
        UserError: The parameters are grouped in another way.
    """
    if optimizer is None:
        return
    saved, groups = checkpoint['optimizer']['param_groups'], optimizer.param_groups
    if [len(g['params']) for g in saved] != [len(g['params']) for g in groups]:
        raise UserError(
            f'cannot resume: the optimizer of the checkpoint has {len(saved)} parameter groups, '
            f'that of this config {len(groups)} others; resume with the paramwise_cfg and '
            'optim_wrapper.constructor it was trained with, or start from its weights with '
            '--cfg-options load_from=FILE'
        )
    for old, group in zip(saved, groups, strict=True):
        old.update({key: group[key] for key in KERNELS if key in group})
