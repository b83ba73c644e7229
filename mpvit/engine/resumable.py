"""Whether a checkpoint is sound as the state of a training, told before any of it is taken."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from mpvit.checkpoints.compatibility import WeightsError, check_values, value_fault
from mpvit.checkpoints.formats import weights_of
from mpvit.engine.hooks import detector_of
from mpvit.errors import UserError
from mpvit.files.records import check_form, is_kind

POSITION = 'epoch_position'  # in the message hub: where the current epoch started
_SEEDS = 2**32  # that numpy takes
# Optimizers with a fused kernel, which does not look at the shapes: it reads and writes as many
# numbers as the parameter has.
_FUSED = (torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad)
_KEPT = ('step', 'exp_avg', 'exp_avg_sq')  # by Adam and AdamW for a parameter
_STEP = 'step'
# What has to be in each entry of a checkpoint, in the form that `mpvit.files.records` takes; the
# optimizer's is of a single one: mmengine's ``OptimWrapperDict`` has several, each below its name.
_FORMS: dict[str, Any] = dict(
    state_dict=dict,
    ema_state_dict=dict,
    meta=dict(epoch=int, iter=int),
    message_hub=dict(log_scalars=dict, resumed_keys=dict, runtime_info=dict),
    rank_buffers=[dict],
    gradients=dict,
    optimizer=dict(state=object, param_groups=[dict(params=[int])]),
)
_POSITION = dict(epoch=int, start=int, batches=int)

Faults = Iterator[str]


class DamagedState(UserError):
    """A checkpoint whose state of a training cannot be right."""


def check_resume(
    runner: Runner, checkpoint: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Make sure that a training can go on from a checkpoint; see `check_state`.

    Args:
        runner: It is about to resume.
        checkpoint: As it was read.
        path: What to call it.

    Raises:
        DamagedState: It cannot.
        WeightsError: Its weights hold something else.
    """
    schedulers = runner.param_schedulers
    states = [s.state_dict() for s in schedulers or () if hasattr(s, 'state_dict')]
    try:
        check_state(checkpoint, detector_of(runner), single_optimizer(runner), states)
    except DamagedState as error:
        raise DamagedState(
            f'checkpoint {path} is damaged: {error}; resume from one that was written earlier'
        ) from error
    except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from error


def single_optimizer(runner: Runner) -> Optimizer | None:
    """The optimizer of a runner; None if it has several, or none yet."""
    wrapper = runner.optim_wrapper
    return wrapper.optimizer if isinstance(wrapper, OptimWrapper) else None


def check_state(
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer | None = None,
    schedulers: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Make sure of kinds, shapes and values of everything that a resumed training takes.

    What is not there, or is sound and does not fit the config, is left to the hook that fits it.

    Args:
        checkpoint: As it was read.
        model: What is trained.
        optimizer: What trains it; None if that is not known.
        schedulers: States of the schedulers of the config.

    Raises:
        DamagedState: Something cannot be right; it is named.
        mpvit.checkpoints.compatibility.WeightsError: The weights hold something else.
    """
    try:
        _check_kinds(checkpoint, single=optimizer is not None)
    except ValueError as error:
        raise DamagedState(str(error)) from error
    for fault in _faults(checkpoint, model, optimizer, schedulers):
        raise DamagedState(fault)
    weights, expected = weights_of(checkpoint), model.state_dict()
    if _fit(weights, expected):
        check_values(weights, expected)


def _faults(
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer | None,
    schedulers: Sequence[Mapping[str, Any]],
) -> Faults:
    """What is wrong with entries of the right kinds."""
    yield from _position_faults(checkpoint)
    yield from _scheduler_faults(checkpoint, schedulers)
    expected = model.state_dict()
    if not _fit(weights_of(checkpoint), expected):
        return  # of another model, for `check_fit` to tell
    average = checkpoint.get('ema_state_dict', {})
    yield from _tensor_faults('ema_state_dict', _without_wrapper(average), expected)
    held = {**expected, **dict(model.named_buffers())}  # with those that no state dict has
    for buffers in checkpoint.get('rank_buffers', ()):
        yield from _tensor_faults('rank_buffers', buffers, held, known=True)
    for name, parameter in model.named_parameters():
        gradient = checkpoint.get('gradients', {}).get(name)
        # it may be infinite, of which the optimizer takes care
        if gradient is not None and getattr(gradient, 'shape', None) != parameter.shape:
            yield f'gradients: {name} {_shapes(gradient, parameter)}'
    if optimizer is not None and 'optimizer' in checkpoint:
        yield from _optimizer_faults(checkpoint['optimizer'], optimizer)


def _fit(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        getattr(found[name], 'shape', None) == value.shape for name, value in expected.items()
    )


def _without_wrapper(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix('module.'): value for name, value in weights.items()}


def _check_kinds(checkpoint: Mapping[str, Any], single: bool) -> None:
    """Make sure of the kinds of entries that are there.

    Args:
        checkpoint: As it was read.
        single: The training has one optimizer.

    Raises:
        ValueError: One is of another kind, or lacks something; it is named.
    """
    for name, form in _FORMS.items():
        if name in checkpoint:
            several = name == 'optimizer' and not single
            check_form(checkpoint[name], dict if several else form, name, whole=True)
    if single and 'optimizer' in checkpoint:
        state = checkpoint['optimizer']['state']
        parts = [*state.values()] if isinstance(state, dict) else [state]
        check_form(parts, [dict], 'optimizer.state')
    seed = checkpoint.get('meta', {}).get('seed')
    if seed is not None and not (is_kind(seed, int) and 0 <= seed < _SEEDS):
        raise ValueError('meta.seed is not a seed')
    info = checkpoint.get('message_hub', {}).get('runtime_info', {})
    check_form(info, {'keep_ckpt_ids': list}, 'runtime_info')
    if info.get(POSITION) is not None:
        check_form(info[POSITION], _POSITION, POSITION, whole=True)
    for key, value in info.items():
        if key.startswith('best_score') and not _is_number(value):
            raise ValueError(f'{key} is not a number')
    saved = checkpoint.get('param_schedulers', [])
    for states in saved.values() if isinstance(saved, Mapping) else [saved]:
        check_form(states, [dict], 'param_schedulers')


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, Real) and not isinstance(value, bool)


def _position_faults(checkpoint: Mapping[str, Any]) -> Faults:
    """An epoch and a step that do not go together."""
    if 'meta' not in checkpoint:
        return
    epoch, step = checkpoint['meta']['epoch'], checkpoint['meta']['iter']
    where = f'it stands after {epoch} epochs and {step} steps'
    if not 0 <= epoch <= step:
        yield where
    position = checkpoint.get('message_hub', {}).get('runtime_info', {}).get(POSITION)
    if position is None:
        return
    done, batches = step - position['start'], position['batches']
    inside = position['epoch'] == epoch and 0 <= done <= batches
    after = position['epoch'] == epoch - 1 and done == batches
    if not inside and not after:
        yield (
            f'{where}, but in epoch {position["epoch"] + 1}, which began after {position["start"]} '
            f'steps and has {batches}'
        )


def _scheduler_faults(checkpoint: Mapping[str, Any], now: Sequence[Mapping[str, Any]]) -> Faults:
    saved = checkpoint.get('param_schedulers', [])
    if isinstance(saved, Mapping):
        return
    groups = len(checkpoint.get('optimizer', {}).get('param_groups', ()))
    for number, state in enumerate(saved):
        # the config may have another one, which shares what all of them have
        own = now[number] if number < len(now) else {}
        for key, value in state.items():
            # mmengine may add a group for the base learning rate
            several = isinstance(value, (list, tuple))
            odd = key == 'base_values' and several and len(value) not in (groups, groups + 1)
            if odd or not _is_alike(value, own.get(key)):
                yield f'param_schedulers {number}: {key} is not sound'


def _is_alike(then: Any, now: Any) -> bool:
    """Whether numbers are finite, and of what is a number, or several, now it was then, too."""
    several = isinstance(now, (list, tuple))
    if isinstance(then, (list, tuple)):
        first = now[0] if several and now else None
        return (several or now is None) and all(_is_alike(part, first) for part in then)
    if _is_number(then):
        return math.isfinite(then) and not several
    return then is None or not (several or _is_number(now))


def _tensor_faults(
    where: str,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    known: bool = False,
) -> Faults:
    for name, value in tensors.items():
        wanted = expected.get(name)
        if wanted is None and known:
            yield f'{where}: the model has no {name}'
        elif not isinstance(value, Tensor):
            yield f'{where}: {name} is no tensor'
        elif wanted is not None:
            if value.shape != wanted.shape:
                yield f'{where}: {name} {_shapes(value, wanted)}'
            if fault := value_fault(value, wanted):
                yield f'{where}: {name} {fault}'


def _shapes(value: Any, wanted: Tensor) -> str:
    return f'has the shape {tuple(getattr(value, "shape", ()))} instead of {tuple(wanted.shape)}'


def _optimizer_faults(state: Mapping[str, Any], optimizer: Optimizer) -> Faults:
    saved, groups = state['param_groups'], optimizer.param_groups
    for number, group in enumerate(saved):
        for key in _unsound_settings(group, groups[0], optimizer.defaults):
            yield f'optimizer: {key} of group {number} is not sound'
    numbers = [number for group in saved for number in group['params']]
    parameters = [p for group in groups for p in group['params']]
    if [len(g['params']) for g in saved] != [len(g['params']) for g in groups]:
        return  # for `fit_optimizer_state` to tell
    for number, parameter in zip(numbers, parameters, strict=True):
        own = state['state'].get(number)
        if own:  # a parameter that never had a gradient has none
            for fault in _state_faults(own, parameter, optimizer):
                yield f'optimizer: state {number} {fault}'


def _unsound_settings(
    then: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[str]:
    for key in (now.keys() | then.keys()) - {'params'}:
        old, new = then.get(key), now.get(key)
        # flags came with versions of torch, which adds them
        needed = key in defaults and (_is_number(new) or isinstance(new, tuple))
        lengths = [len(value) for value in (old, new) if isinstance(value, (list, tuple))]
        if (needed and old is None) or not _is_alike(old, new) or len(set(lengths)) > 1:
            yield key


def _state_faults(state: Mapping[str, Any], parameter: Tensor, optimizer: Optimizer) -> Faults:
    if isinstance(optimizer, torch.optim.Adam):
        missing = [key for key in _KEPT if key not in state]
        if missing:
            yield f'has no {missing[0]}'
    for key, value in state.items():
        if key == _STEP:
            if not _is_number(value) or not math.isfinite(value) or value < 0:
                yield f'has a {key} that is none'
        elif isinstance(value, Tensor):
            if isinstance(optimizer, _FUSED) and value.shape != parameter.shape:
                yield f'{key} {_shapes(value, parameter)}'
            if fault := value_fault(value, parameter):
                yield f'{key} {fault}'
        elif isinstance(optimizer, _FUSED) and value is not None:
            yield f'{key} is a {type(value).__name__}, not a tensor'
