"""How weights are updated: few parameter groups, fused steps, mixed precision, averages.

A loss of NaN makes every gradient NaN, and one step with them makes every weight NaN: such a step
is not applied. In a distributed run the gradients are averaged first, so all processes see the
same and decide the same.
"""

import inspect
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import AmpOptimWrapper, DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from mmengine.runner.amp import autocast
from torch import nn

Group = dict[str, Any]
KERNELS = ('fused', 'foreach')  # how a step is computed, not what it computes


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with parameters of equal settings in one group.

    mmengine makes a group of every single parameter, and the optimizer then launches its kernels
    for each alone. All rules of ``paramwise_cfg`` hold. Where the optimizer has a fused kernel for
    the devices of the model it is used, unless the config says ``fused`` or ``foreach`` itself.
    """

    optimizer_cfg: dict[str, Any]

    def add_params(
        self,
        params: list[Group],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: float | None = None,
    ) -> None:
        """Collect the groups of a module and merge them."""
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:  # the outermost call of a recursion
            params[:] = _merge_groups(params, lr=self.base_lr, weight_decay=self.base_wd)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of a model and its wrapper."""
        if self._can_fuse(model):
            self.optimizer_cfg = dict(self.optimizer_cfg, fused=True)
        return super().__call__(model)

    def _can_fuse(self, model: nn.Module) -> bool:
        if any(key in self.optimizer_cfg for key in KERNELS):
            return False
        kind = self.optimizer_cfg['type']
        kind = OPTIMIZERS.get(kind) if isinstance(kind, str) else kind
        if kind is None or 'fused' not in inspect.signature(kind).parameters:
            return False
        kinds = {(p.device, p.dtype) for p in model.parameters() if p.requires_grad}
        probes = [nn.Parameter(torch.zeros(1, device=device, dtype=t)) for device, t in kinds]
        for probe in probes:
            probe.grad = torch.zeros_like(probe)
        try:  # which devices have a kernel depends on the version of torch; it tells when asked
            kind(probes, lr=0.0, fused=True).step()
        except (RuntimeError, ValueError):
            return False
        return True


def _merge_groups(groups: Iterable[Group], **defaults: Any) -> list[Group]:
    """Put parameters whose settings are equal into one group; the order of both stays.

    The defaults are settings of a group that does not say otherwise; None is left out.
    """
    defaults = {key: value for key, value in defaults.items() if value is not None}
    merged: list[tuple[Group, list[nn.Parameter]]] = []
    for group in groups:
        settings = {**defaults, **{k: v for k, v in group.items() if k != 'params'}}
        home = next((params for known, params in merged if known == settings), None)
        if home is None:
            merged.append((settings, home := []))
        home.extend(group['params'])
    return [dict(params=params, **settings) for settings, params in merged]


@OPTIM_WRAPPERS.register_module()
class FiniteOptimWrapper(OptimWrapper):
    """mmengine's `OptimWrapper`, but a step whose gradients are not finite is not applied.

    Finite steps are bit for bit mmengine's. What tells is the norm that clipping computes; without
    clipping it is computed for that.

    Attributes:
        grad_norm: Norm of the gradients of the latest step, before clipping.
        skipped: Steps that were not applied, in all.
        skipped_in_a_row: Those since the last one that was applied.
    """

    grad_norm: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0

    def step(self, **kwargs: Any) -> None:
        """Clip the gradients and take the step, if they are finite."""
        self._clip_grad()
        if self._count():
            self.optimizer.step(**kwargs)

    def _clip_grad(self) -> None:
        """Clip as the config says and keep the norm; without clipping only measure it."""
        params = [p for group in self.optimizer.param_groups for p in group['params']]
        params = [p for p in params if p.requires_grad and p.grad is not None]
        if not params:
            self.grad_norm = 0.0
            return
        if self.clip_grad_kwargs and self.grad_name == 'grad_norm':
            self.grad_norm = float(self.clip_func(params, **self.clip_grad_kwargs))
            self.message_hub.update_scalar(f'train/{self.grad_name}', self.grad_norm)
            return
        # with a limit of infinity finite gradients are multiplied by 1
        self.grad_norm = float(torch.nn.utils.clip_grad_norm_(params, math.inf))
        if self.clip_grad_kwargs:
            self.clip_func(params, **self.clip_grad_kwargs)

    def _count(self, excused: bool = False) -> bool:
        """Count a step, by its norm, and say whether it may be applied."""
        if math.isfinite(self.grad_norm):
            self.skipped_in_a_row = 0
            return True
        self.skipped += 1
        self.skipped_in_a_row += not excused
        return False


@OPTIM_WRAPPERS.register_module()
class FiniteAmpOptimWrapper(FiniteOptimWrapper, AmpOptimWrapper):
    """mmengine's `AmpOptimWrapper`, whose scaler leaves steps out by itself, with the same counts.

    A dynamic loss scale is found by overflows: a step left out counts in a row only once the scale
    has come down to 1, where it can no longer be the cause.
    """

    def step(self, **kwargs: Any) -> None:
        """Unscale and clip the gradients, and take the step if they are finite."""
        self.loss_scaler.unscale_(self.optimizer)
        self._clip_grad()
        searching = self._scale_update_param is None
        if not math.isfinite(self.grad_norm):  # asking for the scale waits for the device
            searching = searching and self.loss_scaler.get_scale() > 1
        self._count(excused=searching)
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self._scale_update_param)


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(FiniteOptimWrapper):
    """Mixed precision in bfloat16 on any device, without scaling the loss.

    bfloat16 has the range of float32, so gradients do not vanish and need no `GradScaler`, which
    mmengine's `AmpOptimWrapper` always brings and which needs a GPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Around the forward pass of a training step."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield


@MODELS.register_module()
class SharedWeightsEMA(ExponentialMovingAverage):
    """mmengine's average over parameters and buffers, with shared weights averaged once a step.

    mmengine goes through the state dict, in which the layers that all decoder layers share stand
    several times, and so averages them several times a step.
    """

    avg_parameters: dict[str, Any]

    def __init__(self, model: nn.Module, **kwargs: Any) -> None:
        super().__init__(model, update_buffers=True, **kwargs)
        once = {id(p): name for name, p in reversed(self.module.state_dict(keep_vars=True).items())}
        names = set(once.values())
        self.avg_parameters = {n: p for n, p in self.avg_parameters.items() if n in names}
