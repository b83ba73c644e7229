"""What a resumed training takes from its checkpoint, whatever the config says now."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mpvit.checkpoints.loading import SOURCE
from mpvit.config.literals import NOT_DATA, literal_entries
from mpvit.errors import listed

# Entries of the config that shape what a checkpoint holds: optimizer, schedule, random numbers.
_TAKEN = (
    'optim_wrapper.optimizer',
    'optim_wrapper.paramwise_cfg',
    'param_scheduler',
    'auto_scale_lr',
    'randomness.seed',
)
_MISSING = '(nothing)'


def warn_of_what_stays(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Log a warning that names settings of the config without effect on a resumed training.

    Weights, the optimizer with its learning rates, the schedule, the seed and the position are
    the checkpoint's; all else, such as data, length, evaluation and hooks, is the config's.

    Args:
        runner: It is about to resume.
        checkpoint: As it was read.
    """
    if not is_main_process():
        return
    try:
        then = literal_entries(checkpoint['meta'][SOURCE])
        now = literal_entries(runner.cfg.pretty_text)
    except (KeyError, *NOT_DATA):  # another project's
        return
    found = list(without_effect(then, now))
    if found:
        runner.logger.warning(
            f'Without effect on a resumed training: {listed(found)}. The optimizer and its '
            'schedule are those of the checkpoint; to change them, start another training with '
            f'--load-from {runner._load_from}'
        )


def without_effect(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What a config sets otherwise than that of a checkpoint, and what stays: a text for each.

    Args:
        then: Entries of the config with which the checkpoint was written.
        now: Entries of the config that resumes.
    """
    for place in _TAKEN:
        before, after = _at(then, place), _at(now, place)
        if place == 'randomness.seed' and after in (_MISSING, None):
            continue  # it is drawn, and that of the checkpoint is as good
        for key, old, new in _changes(place, before, after):
            yield f'{key} = {new!r} (stays {old!r})'


def _at(entries: Any, place: str) -> Any:
    for key in place.split('.'):
        entries = entries.get(key, _MISSING) if isinstance(entries, Mapping) else _MISSING
    return entries


def _changes(place: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Places in two nested structures that differ, with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from _changes(f'{place}.{key}', old.get(key, _MISSING), new.get(key, _MISSING))
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        if len(old) == len(new) and any(isinstance(part, Mapping) for part in old):
            for index, parts in enumerate(zip(old, new, strict=True)):
                yield from _changes(f'{place}.{index}', *parts)
        elif list(old) != list(new):
            yield place, old, new
    elif old != new:
        yield place, old, new
