"""Published and custom sizes of a backbone, completed and checked in one way."""

from collections.abc import Mapping, Sequence
from typing import Any

ConfigDict = dict[str, Any]


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
