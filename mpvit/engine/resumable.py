"""Whether a checkpoint is sound as the state of a training, told before any of it is taken."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
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

POSITION = 'epoch_position'  # in the message hub: where the current epoch started
_SEEDS = 2**32  # that numpy takes
# Optimizers with a fused kernel, which does not look at the shapes: it reads and writes as many
# numbers as the parameter has.
_FUSED = (torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad)
_KEPT = ('step', 'exp_avg', 'exp_avg_sq')  # by Adam and AdamW for a parameter
_STEP = 'step'

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
    """What is wrong; each part relies on those before it."""
    yield from _kind_faults(checkpoint, single=optimizer is not None)
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
        if gradient is not None and gradient.shape != parameter.shape:
            yield f'gradients: {name} {_shapes(gradient, parameter)}'
    if optimizer is not None and 'optimizer' in checkpoint:
        yield from _optimizer_faults(checkpoint['optimizer'], optimizer)


def _fit(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        getattr(found[name], 'shape', None) == value.shape for name, value in expected.items()
    )


def _without_wrapper(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix('module.'): value for name, value in weights.items()}


def _kind_faults(checkpoint: Mapping[str, Any], single: bool) -> Faults:
    """Entries that are there and of the wrong kind; of a single optimizer also those of its state.

    mmengine's ``OptimWrapperDict`` has several, with a state each below its name.
    """
    for place, (is_right, kind) in _KINDS.items():
        *above, key = place.split('.')
        if above == ['optimizer'] and not single:
            continue
        holder: Any = checkpoint
        for name in above:
            holder = holder.get(name, {}) if isinstance(holder, Mapping) else {}
        optional = not above or above[0] not in checkpoint or place in _OPTIONAL
        if key not in holder and optional:
            continue
        if key not in holder or not is_right(holder[key]):
            yield f'{place} is not {kind}'
    info = checkpoint.get('message_hub', {}).get('runtime_info', {})
    for key, value in info.items():
        if str(key).startswith('best_score') and not _is_number(value):
            yield f'message_hub.runtime_info.{key} is not a number'


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_list(value: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(map(is_right, value))


def _is_tensors(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(part, Tensor) for part in value.values())


def _is_seed(value: Any) -> bool:
    return value is None or (_is_count(value) and value < _SEEDS)


def _is_position(value: Any) -> bool:
    return _is_mapping(value) and all(map(_is_count, map(value.get, ('epoch', 'start', 'batches'))))


def _is_states(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_mapping, value.values()))


def _is_groups(value: Any) -> bool:
    return _is_list(value, lambda g: _is_mapping(g) and _is_list(g.get('params'), _is_count))


def _is_schedulers(value: Any) -> bool:
    named = isinstance(value, Mapping)  # of several optimizers
    return all(_is_list(part, _is_mapping) for part in (value.values() if named else [value]))


_MAPPING = (_is_mapping, 'a dict')
_HUB = 'message_hub.runtime_info'
# Entries by their place, in an order in which those above come first.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'state_dict': _MAPPING,
    'ema_state_dict': (_is_tensors, 'tensors by name'),
    'meta': _MAPPING,
    'meta.epoch': (_is_count, 'a number of epochs'),
    'meta.iter': (_is_count, 'a number of steps'),
    'meta.seed': (_is_seed, 'a seed'),
    'message_hub': _MAPPING,
    'message_hub.log_scalars': _MAPPING,
    'message_hub.resumed_keys': _MAPPING,
    _HUB: _MAPPING,
    f'{_HUB}.keep_ckpt_ids': (lambda v: _is_list(v, lambda _: True), 'a list'),
    f'{_HUB}.{POSITION}': (_is_position, 'a position'),
    'optimizer': _MAPPING,
    'optimizer.state': (_is_states, 'a dict of states'),
    'optimizer.param_groups': (_is_groups, 'a list of groups'),
    'param_schedulers': (_is_schedulers, 'a list of states'),
    'rank_buffers': (lambda v: _is_list(v, _is_tensors), 'a list of tensors by name'),
    'gradients': (_is_tensors, 'tensors by name'),
}
_OPTIONAL = ('meta.seed', f'{_HUB}.keep_ckpt_ids', f'{_HUB}.{POSITION}')


def _position_faults(checkpoint: Mapping[str, Any]) -> Faults:
    """An epoch and a step that do not go together."""
    if 'meta' not in checkpoint:
        return
    epoch, step = checkpoint['meta']['epoch'], checkpoint['meta']['iter']
    where = f'it stands after {epoch} epochs and {step} steps'
    if step < epoch:
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
            odd = key == 'base_values' and len(value) not in (groups, groups + 1)
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
        if wanted is None:
            if known:
                yield f'{where}: the model has no {name}'
            continue
        if value.shape != wanted.shape:
            yield f'{where}: {name} {_shapes(value, wanted)}'
        if fault := value_fault(value, wanted):
            yield f'{where}: {name} {fault}'


def _shapes(value: Tensor, wanted: Tensor) -> str:
    return f'has the shape {tuple(value.shape)} instead of {tuple(wanted.shape)}'


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
