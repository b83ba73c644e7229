"""All numbers of a detector, as a whole and by part, at one or more image sizes."""

import copy
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from mpvit.config.reading import load_config, refuse_classifier
from mpvit.engine.build import explained
from mpvit.engine.hooks.prepare_inference import chosen_device, prepare
from mpvit.engine.run_errors import explain
from mpvit.errors import UserError
from mpvit.model_info.measure import (
    Size,
    available_memory,
    kept_for_backward,
    latency,
    made_up,
    peak_memory,
    predict,
)
from mpvit.model_info.operations import Count, Operations, count_operations

FULL = (800, 1333)  # the usual size in papers
_PARTS = ('backbone', 'neck', 'encoder', 'decoder')  # and everything that ends with "head"
TOTAL, REST = 'total', 'rest'
_SMALLER = 'choose a smaller --size, or only count with --no-memory --no-latency'
_GIB = 2**30


@dataclass(frozen=True)
class Figures:
    """Figures of a part of a detector, for one image.

    Attributes:
        parameters: All of them.
        trainable: Those that a training changes.
        multiply_adds: Of products, convolutions and bilinear samples; papers call them FLOPs.
        flops: All floating-point operations, two for a multiply-add.
        kept: Bytes that training keeps for the backward pass; None if not measured.
        seconds: Median time at inference; None if not measured.
    """

    parameters: int
    trainable: int
    multiply_adds: int
    flops: int
    kept: int | None
    seconds: float | None


@dataclass(frozen=True)
class AtSize:
    """Figures at an image size.

    Attributes:
        size: Height and width in pixels.
        parts: By dotted name of the module; 'rest' for what is in no part, 'total' for the whole.
        peak: Bytes that inference needs above weights and image; None if not measured.
        seconds: Of each run of inference; empty if not measured.
        unknown: Calls of operators whose operations are not known and not counted, by name.
    """

    size: Size
    parts: Mapping[str, Figures]
    peak: int | None
    seconds: Sequence[float]
    unknown: Mapping[str, int]

    @property
    def total(self) -> Figures:
        """Figures of the whole detector."""
        return self.parts[TOTAL]


@dataclass(frozen=True)
class ModelInfo:
    """Figures of a detector.

    Attributes:
        config: Its config file.
        device: Where memory and time were measured.
        sizes: Figures by image size, in the order asked for.
    """

    config: str
    device: str
    sizes: Sequence[AtSize]

    @property
    def name(self) -> str:
        """Name of the config."""
        return Path(self.config).stem


def model_info(
    config: str | os.PathLike[str],
    sizes: Sequence[Size] = (FULL,),
    *,
    device: str | None = None,
    memory: bool = True,
    runs: int = 5,
) -> ModelInfo:
    """Count and measure a detector with random weights.

    Args:
        config: Config file.
        sizes: Heights and widths in pixels of the images, as they enter the backbone.
        device: Where memory and time are measured; None for the first GPU, or the CPU where there
            is none.
        memory: Measure memory.
        runs: Timed runs for the latency; 0 for none.

    Raises:
        UserError: The config is missing or does not build, an image of such a size does not go
            through the detector, or there is not enough memory.
    """
    cfg = load_config(config)
    place = _device(device)
    with _quiet():
        model = random_detector(cfg, initialise=bool(memory or runs))
        parts = part_names(model)
        counts = {size: _count(model, size, cfg.filename) for size in sizes}
        parameters = {name: _parameters(model.get_submodule(name)) for name in ('', *parts)}
        measured = {size: _Measured() for size in counts}
        if memory or runs:
            for size, count in counts.items():
                _check_memory(count.peak, size, place)
            measured = _measure(model.to(place), counts, parts, memory, runs)
    found = [
        AtSize(
            size=size,
            parts=_figures(parameters, counts[size], of_size),
            peak=of_size.peak,
            seconds=of_size.seconds.get('', []),
            unknown=counts[size].unknown,
        )
        for size, of_size in measured.items()
    ]
    return ModelInfo(os.fspath(config), str(place), found)


def part_names(model: nn.Module) -> list[str]:
    """Dotted names of the parts of a detector, those of its backbone included."""
    children = dict(model.named_children())
    heads = [name for name in children if name.endswith('head')]
    names = []
    for name in [*(name for name in _PARTS if name in children), *heads]:
        names.append(name)
        if name == 'backbone':
            names += [f'{name}.{stage}' for stage in _stages(children[name])]
    return names


@dataclass(frozen=True)
class _Measured:
    kept: Mapping[str, int] = field(default_factory=dict)
    peak: int | None = None
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)


def _stages(backbone: nn.Module) -> Iterator[str]:
    for name, child in backbone.named_children():
        entries = child.named_children() if isinstance(child, nn.ModuleList) else ()
        names = [f'{name}.{entry}' for entry, _ in entries] or [name]
        yield from (name for name in names if list(backbone.get_submodule(name).parameters()))


def _device(name: str | None) -> torch.device:
    device = torch.device(chosen_device(name))
    if device.type not in ('cpu', 'cuda'):
        raise UserError(f'device {name}: memory and time can be measured on cpu and cuda')
    return device


@contextmanager
def _quiet() -> Iterator[None]:
    """Without mmengine's list of every parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def random_detector(cfg: Config, initialise: bool = True) -> Any:
    """The detector of a config, with random weights where they are computed with."""
    refuse_classifier(cfg)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    # not at the top: mmdet's models can be imported only after `mpvit.register`
    from mpvit.models.detector import check_neck

    settings = copy.deepcopy(cfg.model)
    for key in ('init_cfg', 'pretrained'):  # any weights will do
        settings.get('backbone', {}).pop(key, None)
    with explained(cfg):
        model = revert_sync_batchnorm(MODELS.build(settings))
        check_neck(model, settings, cfg.filename)
        if initialise:
            model.init_weights()
    return model


def _count(model: nn.Module, size: Size, config: str) -> Count:
    inputs = made_up(size, torch.device('meta'))
    try:
        return count_operations(model, lambda copied: predict(copied, inputs))
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f'{config}: an image of {size[0]}x{size[1]} px does not go through the detector: '
            f'{reason}'
        ) from error


def _check_memory(needed: int, size: Size, device: torch.device) -> None:
    free = available_memory(device)
    if needed > free:
        raise UserError(
            f'an image of {size[0]}x{size[1]} px needs {needed / _GIB:.1f} GiB of memory and '
            f'{free / _GIB:.1f} GiB of {device} are free; {_SMALLER}'
        )


def _measure(
    model: nn.Module, sizes: Iterable[Size], parts: Sequence[str], memory: bool, runs: int
) -> dict[Size, _Measured]:
    """Measure at all sizes; the model is for inference only afterwards."""
    device = next(model.parameters()).device
    inputs = {size: made_up(size, device) for size in sizes}
    kept: dict[Size, dict[str, int]] = {size: {} for size in inputs}
    found = {}
    try:
        if memory:  # in training mode first
            kept = {size: kept_for_backward(model, given, parts) for size, given in inputs.items()}
        prepare(model)
        for size, given in inputs.items():
            peak = peak_memory(partial(predict, model, given), device) if memory else None
            seconds = latency(model, given, parts, runs) if runs else {}
            found[size] = _Measured(kept[size], peak, seconds)
    except (RuntimeError, MemoryError) as error:
        if explain(error) is None:
            raise
        raise UserError(f'{device} is out of memory; {_SMALLER}') from error
    return found


def _parameters(module: nn.Module) -> tuple[int, int]:
    """All, and those that are trained."""
    counts = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(n for n, _ in counts), sum(n for n, trained in counts if trained)


def _figures(
    parameters: Mapping[str, tuple[int, int]], count: Count, measured: _Measured
) -> dict[str, Figures]:
    """Figures by part, with what is in no part and the total at the end."""
    found = {
        name: Figures(
            *own,
            *count.parts.get(name, Operations(0, 0)),
            measured.kept.get(name),
            median(measured.seconds[name]) if measured.seconds else None,
        )
        for name, own in parameters.items()
    }
    total = found.pop('')
    outermost = [part for name, part in found.items() if '.' not in name]
    rest: dict[str, Any] = {
        key: None if whole is None else whole - sum(getattr(part, key) for part in outermost)
        for key, whole in asdict(total).items()
    }
    return {**found, REST: Figures(**rest), TOTAL: total}
