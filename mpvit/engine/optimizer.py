"""How weights are updated: few parameter groups, fused steps, mixed precision."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from mmengine.runner.amp import autocast
from torch import nn

from mpvit.engine.hooks.finite_steps import FiniteOptimWrapper
from mpvit.errors import UserError

Group = dict[str, Any]
_KERNELS = ('fused', 'foreach')  # how a step is computed, not what it computes


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
        """Collect the groups of a module and merge them.

        Args:
            params: Groups collected so far, changed in place.
            module: What to add.
            prefix: Name of the module; empty for the whole model.
            is_dcn_module: As for mmengine's constructor.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:  # the outermost call of a recursion
            params[:] = merge_groups(params, lr=self.base_lr, weight_decay=self.base_wd)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of a model and its wrapper.

        Args:
            model: The detector.
        """
        if self._can_fuse(model):
            self.optimizer_cfg = dict(self.optimizer_cfg, fused=True)
        return super().__call__(model)

    def _can_fuse(self, model: nn.Module) -> bool:
        if any(key in self.optimizer_cfg for key in _KERNELS):
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


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(FiniteOptimWrapper):
    """Mixed precision in bfloat16 on any device, without scaling the loss.

    bfloat16 has the range of float32, so gradients do not vanish and need no `GradScaler`, which
    mmengine's `AmpOptimWrapper` always brings and which needs a GPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Around the forward pass of a training step.

        Args:
            model: The detector.
        """
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield


def merge_groups(groups: Iterable[Group], **defaults: Any) -> list[Group]:
    """Put parameters whose settings are equal into one group.

    Args:
        groups: Groups with their ``params``.
        **defaults: Settings of a group that does not say otherwise; None is left out.

    Returns:
        Groups in the order in which their settings first appear, with parameters in order.
    """
    defaults = {key: value for key, value in defaults.items() if value is not None}
    merged: list[tuple[Group, list[nn.Parameter]]] = []
    for group in groups:
        settings = {**defaults, **_settings(group)}
        home = next((params for known, params in merged if known == settings), None)
        if home is None:
            merged.append((settings, home := []))
        home.extend(group['params'])
    return [dict(params=params, **settings) for settings, params in merged]


def fit_optimizer_state(
    checkpoint: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> str | None:
    """Bring the optimizer state of a checkpoint to the groups of the optimizer that resumes.

    States with one group for every parameter, as mmengine's constructor makes them, are regrouped
    along with the state of the schedulers. The kernels are those of the optimizer, since a run may
    go on on another device.

    Args:
        checkpoint: With ``optimizer`` and ``param_schedulers``; changed in place.
        model: Whose parameters the optimizer holds.
        optimizer: Into which the state will be loaded.

    Returns:
        A line that says what was done, or None.

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
        old.update({key: group[key] for key in _KERNELS if key in group})
    return line


def _settings(group: Group) -> Group:
    return {key: value for key, value in group.items() if key != 'params'}


def _check_regroupable(saved: Sequence[Group], picked: Sequence[Sequence[int]]) -> None:
    alone = all(len(group['params']) == 1 for group in saved)
    wanted = sorted(place for places in picked for place in places)
    fits = alone and wanted == list(range(len(saved)))
    if not fits or any(
        _settings(saved[i]) != _settings(saved[places[0]]) for places in picked for i in places
    ):
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
        state['param_groups'].append(dict(_settings(saved[places[0]]), params=list(numbers)))
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
