"""Names of tensors in the official CoaT checkpoints, translated to ours and back.

Pure functions of names. The ImageNet files of timm have the official names too.
"""

import re
from collections.abc import Iterable

# Serial layers of every stage, and parallel layers.
CoaTLayers = tuple[tuple[int, ...], int]

# What is inside a stage, a serial and a parallel layer: the same here and there.
_VALUE = r'\.(?:weight|bias)'
_IN_STAGE = rf'cls_token|(?:patch_embed\.(?:proj|norm)|cpe\.proj|crpe\.conv_list\.\d+){_VALUE}'
_IN_SERIAL = rf'(?:norm[12]|factoratt_crpe\.(?:qkv|proj)|mlp\.fc[12]){_VALUE}'
_IN_PARALLEL = rf'(?:norm[12][234]|factoratt_crpe[234]\.(?:qkv|proj)|mlp2\.fc[12]){_VALUE}'

_STAGE = re.compile(r'(cls_token|patch_embed|cpe|crpe)([1-4])(.*)')
_SERIAL = re.compile(rf'serial_blocks([1-4])\.(\d+)\.({_IN_SERIAL})')
_PARALLEL = re.compile(rf'parallel_blocks\.(\d+)\.({_IN_PARALLEL})')
_CLASSIFIER = re.compile(rf'(?:norm[1-4]|head|aggregate){_VALUE}')
# The official CoaT registers the position encodings of a stage again in every layer that uses
# them, and the MLP of a parallel layer once per scale, so files hold the same tensors several
# times; these are the copies.
_ALIAS = re.compile(
    rf'serial_blocks[1-4]\.\d+\.(?:cpe\.proj|factoratt_crpe\.crpe\.conv_list\.\d+){_VALUE}|'
    rf'parallel_blocks\.\d+\.(?:factoratt_crpe[234]\.crpe\.conv_list\.\d+|mlp[34]\.fc[12]){_VALUE}'
)
_OUR_STAGE = re.compile(rf'stages\.([0-3])\.({_IN_STAGE})')
_OUR_SERIAL = re.compile(rf'stages\.([0-3])\.layers\.(\d+)\.({_IN_SERIAL})')
_OUR_PARALLEL = re.compile(rf'parallel_layers\.(\d+)\.({_IN_PARALLEL})')


def coat_from_official(name: str) -> str | None:
    """Our name of a tensor of an official CoaT or CoaT-Lite file, without any prefix.

    Args:
        name: Official name, such as ``serial_blocks2.0.norm1.weight``.

    Returns:
        Our name; None for a copy of another tensor and for the ImageNet classifier and its norms,
        which the detector does not have.

    Raises:
        KeyError: The name does not belong to CoaT.
    """
    if _ALIAS.fullmatch(name) or _CLASSIFIER.fullmatch(name):
        return None
    if match := _SERIAL.fullmatch(name):
        return f'stages.{int(match[1]) - 1}.layers.{match[2]}.{match[3]}'
    if match := _PARALLEL.fullmatch(name):
        return f'parallel_layers.{match[1]}.{match[2]}'
    if match := _STAGE.fullmatch(name):
        ours = f'stages.{int(match[2]) - 1}.{match[1]}{match[3]}'
        if _OUR_STAGE.fullmatch(ours):
            return ours
    raise KeyError(f'{name!r} is not a tensor of an official CoaT checkpoint')


def coat_layers(names: Iterable[str]) -> CoaTLayers:
    """Count the layers of a CoaT of ours, from the names of its tensors.

    Args:
        names: Our names of all its tensors, without any prefix; others are ignored.
    """
    serial = [0, 0, 0, 0]
    parallel = 0
    for name in names:
        if match := _OUR_SERIAL.match(name):
            stage = int(match[1])
            serial[stage] = max(serial[stage], int(match[2]) + 1)
        elif match := _OUR_PARALLEL.match(name):
            parallel = max(parallel, int(match[1]) + 1)
    return tuple(serial), parallel


def coat_to_official(name: str, layers: CoaTLayers) -> list[str]:
    """Every official name of one of our tensors.

    Args:
        name: Our name, such as ``stages.1.cpe.proj.weight``, without any prefix.
        layers: Layers of the model, which share tensors; see `coat_layers`.

    Returns:
        The canonical name, then those under which official files hold copies of the tensor.

    Raises:
        KeyError: The name does not belong to our CoaT.
    """
    if match := _OUR_SERIAL.fullmatch(name):
        return [f'serial_blocks{int(match[1]) + 1}.{match[2]}.{match[3]}']
    if match := _OUR_PARALLEL.fullmatch(name):
        prefix, inner = f'parallel_blocks.{match[1]}.', match[2]
        if inner.startswith('mlp2.'):
            return [prefix + inner.replace('mlp2', mlp) for mlp in ('mlp2', 'mlp3', 'mlp4')]
        return [prefix + inner]
    if match := _OUR_STAGE.fullmatch(name):
        return _stage_to_official(int(match[1]), match[2], layers)
    raise KeyError(f'{name!r} is not a tensor of our CoaT')


def _stage_to_official(index: int, inner: str, layers: CoaTLayers) -> list[str]:
    serial, parallel = layers
    module, dot, rest = inner.partition('.')
    number = index + 1
    names = [f'{module}{number}{dot}{rest}']
    if module == 'cpe':
        names += [f'serial_blocks{number}.{i}.{inner}' for i in range(serial[index])]
    elif module == 'crpe':
        blocks = [f'serial_blocks{number}.{i}.factoratt_crpe' for i in range(serial[index])]
        if number > 1:
            blocks += [f'parallel_blocks.{i}.factoratt_crpe{number}' for i in range(parallel)]
        names += [f'{block}.{inner}' for block in blocks]
    return names
