"""What stands between a checkpoint that was read and a model that loads it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
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
from mpvit.engine.optimizer import KERNELS, settings_of_group
from mpvit.engine.resumable import check_resume
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
            _fit_optimizer(runner, checkpoint, model)
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


def _fit_optimizer(runner: Runner, checkpoint: dict[str, Any], model: nn.Module) -> None:
    if runner._resume and isinstance(runner.optim_wrapper, OptimWrapper):
        line = fit_optimizer_state(checkpoint, model, runner.optim_wrapper.optimizer)
        if line:
            runner.logger.info(line)


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
    checkpoint: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> str | None:
    """Bring the optimizer state of a checkpoint to the groups of the optimizer that resumes.

    States with one group for every parameter, as mmengine's constructor makes them, are regrouped
    along with the state of the schedulers. The kernels are those of the optimizer, since a run may
    go on on another device.

    The ``optimizer`` and ``param_schedulers`` of the checkpoint are changed in place. Returned is a
    line that says what was done, if anything was.

    Raises:
        UserError: The parameters are grouped in a way that does not fit.
    """
    state = checkpoint['optimizer']
    saved, groups = state['param_groups'], optimizer.param_groups
    line = None
    if [len(g['params']) for g in saved] != [len(g['params']) for g in groups]:
        rank = {id(p): i for i, p in enumerate(p for p in model.parameters() if p.requires_grad)}
        # without paramwise_cfg frozen parameters are in the groups too; they have no rank
        picked = [[rank.get(id(p), -1) for p in group['params']] for group in groups]
        _check_regroupable(saved, picked)
        _regroup_schedulers(checkpoint.get('param_schedulers') or [], picked, len(saved))
        _regroup_state(state, picked)
        line = f'Optimizer state: {len(saved)} groups of the checkpoint merged into {len(groups)}.'
    for old, group in zip(state['param_groups'], groups, strict=True):
        old.update({key: group[key] for key in KERNELS if key in group})
    return line


def _check_regroupable(saved: Sequence[dict[str, Any]], picked: Sequence[Sequence[int]]) -> None:
    alone = all(len(group['params']) == 1 for group in saved)
    wanted = sorted(place for places in picked for place in places)
    fits = alone and wanted == list(range(len(saved)))
    settings = [settings_of_group(group) for group in saved]
    if not fits or any(settings[i] != settings[places[0]] for places in picked for i in places):
        raise UserError(
            f'cannot resume: the optimizer of the checkpoint has {len(saved)} parameter groups, '
            f'that of this config {len(picked)} others; resume with the paramwise_cfg and '
            'optim_wrapper.constructor it was trained with, or start from its weights with '
            '--cfg-options load_from=FILE'
        )


def _regroup_state(state: dict[str, Any], picked: Sequence[Sequence[int]]) -> None:
    saved, old = state['param_groups'], state['state']
    state['state'], state['param_groups'] = {}, []
    count = 0
    for places in picked:
        numbers = range(count, count + len(places))
        count += len(places)
        settings = settings_of_group(saved[places[0]])
        state['param_groups'].append(dict(settings, params=list(numbers)))
        for number, place in zip(numbers, places, strict=True):
            (before,) = saved[place]['params']
            if before in old:  # a parameter that never had a gradient has no state
                state['state'][number] = old[before]


def _regroup_schedulers(
    schedulers: Sequence[dict[str, Any]], picked: Sequence[Sequence[int]], count: int
) -> None:
    """Schedulers keep lists with a value for every group; mmengine adds one for its base lr."""
    for scheduler in schedulers:
        for key, values in scheduler.items():
            if isinstance(values, list) and len(values) in (count, count + 1):
                scheduler[key] = [values[places[0]] for places in picked] + values[count:]
