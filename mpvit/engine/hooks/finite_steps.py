"""Steps whose gradients are not finite: never applied, counted, and the end of training after many.

A loss of NaN makes every gradient NaN, and one step with them makes every weight NaN. In a
distributed run the gradients are averaged first, so all processes see the same and decide the
same.
"""

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import Tensor

from mpvit.engine.hooks.batch_dump import Batch, dump_batches, images_of, plain_losses
from mpvit.engine.run_errors import last_checkpoint
from mpvit.errors import UserError

_SHOWN = 8  # images named in a line


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
        """Clip the gradients and take the step, if they are finite.

        Args:
            **kwargs: As for `torch.optim.Optimizer.step`.
        """
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
        """Unscale and clip the gradients, and take the step if they are finite.

        Args:
            **kwargs: As for `torch.optim.Optimizer.step`.
        """
        self.loss_scaler.unscale_(self.optimizer)
        self._clip_grad()
        searching = self._scale_update_param is None
        if not math.isfinite(self.grad_norm):  # asking for the scale waits for the device
            searching = searching and self.loss_scaler.get_scale() > 1
        self._count(excused=searching)
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self._scale_update_param)


@HOOKS.register_module()
class FiniteStepHook(Hook):
    """Reports steps that `FiniteOptimWrapper` did not apply, and ends training after many.

    A step left out leaves the model as it was: batch norm statistics, which the forward pass
    changed, are put back before an average of the weights (`EMAHook`) or a checkpoint takes them.
    What the batch was is written to ``nonfinite/`` in the work folder (`dump_batches`).

    With a wrapper that applies every step, training ends at the first loss that is not finite.

    Args:
        max_in_a_row: Steps in a row after which training ends, 1 or more.
        max_dumps: Batches that are written by each process; later ones are only counted.
    """

    priority = 'ABOVE_NORMAL'  # before EMAHook, loggers and CheckpointHook

    def __init__(self, max_in_a_row: int = 10, max_dumps: int = 20) -> None:
        if max_in_a_row < 1:
            raise ValueError(f'max_in_a_row is 1 or more, not {max_in_a_row}')
        self.max_in_a_row, self.max_dumps = max_in_a_row, max_dumps
        self._dumps = self._seen = 0
        self._batches: list[Batch] = []  # of the step that is under way
        self._buffers: list[tuple[list[Tensor], list[Tensor]]] = []  # the model's, and their copies

    def before_train(self, runner: Runner) -> None:
        """Make room for a copy of the model's buffers, by data type."""
        by_type: dict[Any, list[Tensor]] = {}
        for buffer in runner.model.buffers():
            by_type.setdefault((buffer.device, buffer.dtype), []).append(buffer)
        self._buffers = [(group, [b.clone() for b in group]) for group in by_type.values()]
        self._batches.clear()
        self._seen = getattr(runner.optim_wrapper, 'skipped', 0)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the buffers as they are before a step."""
        if not self._batches:
            for buffers, copies in self._buffers:
                torch._foreach_copy_(copies, buffers)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Look at what became of the step.

        Raises:
            UserError: Too many steps in a row were not finite.
        """
        wrapper = runner.optim_wrapper
        self._batches.append(Batch(data_batch, outputs or {}))
        if not isinstance(wrapper, FiniteOptimWrapper):
            self._check_applied(runner)
        elif not wrapper.should_update():
            return  # gradients are still being accumulated
        elif wrapper.skipped > self._seen:
            self._seen = wrapper.skipped
            self._report(runner, wrapper)
        self._batches.clear()

    def _report(self, runner: Runner, wrapper: FiniteOptimWrapper) -> None:
        for buffers, copies in self._buffers:
            torch._foreach_copy_(buffers, copies)
        what = f'gradient norm {wrapper.grad_norm}; {self._described(runner)}'
        row = wrapper.skipped_in_a_row
        if row >= self.max_in_a_row:
            raise UserError(
                f'training stopped at step {runner.iter + 1}: {row} steps in a row were not '
                f'finite ({what}). None of them was applied; {last_checkpoint(runner.work_dir)}. '
                'Look at these images and boxes, lower optim_wrapper.optimizer.lr, or train '
                'without --amp fp16',
                every_rank=True,
            )
        runner.logger.warning(
            f'Step {runner.iter + 1} was not applied ({what}); {row} in a row, training ends at '
            f'{self.max_in_a_row}; {wrapper.skipped} in all'
        )

    def _check_applied(self, runner: Runner) -> None:
        loss = self._batches[-1].outputs.get('loss')
        if loss is None or math.isfinite(float(loss)):
            return
        raise UserError(
            f'training stopped at step {runner.iter + 1}: {self._described(runner)}. '
            f'optim_wrapper.type={type(runner.optim_wrapper).__name__} applied the step '
            f'(FiniteOptimWrapper would not have); {last_checkpoint(runner.work_dir)}',
            every_rank=True,
        )

    def _described(self, runner: Runner) -> str:
        """Losses and images of the step, and where they are written."""
        losses = [
            f'{name} {value}'
            for batch in self._batches
            for name, value in plain_losses(batch.outputs).items()
            if isinstance(value, str)  # not finite
        ]
        images = [
            f'{image["img_id"]} ({image["img_path"]})'
            for batch in self._batches
            for image in images_of(batch.data)
        ]
        more = f' and {len(images) - _SHOWN} more' if len(images) > _SHOWN else ''
        text = f'{", ".join(losses) or "losses finite"}; images {", ".join(images[:_SHOWN])}{more}'
        if self._dumps >= self.max_dumps:
            return text
        self._dumps += 1
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        record = dict(
            epoch=runner.epoch + 1,
            gradient_norm=str(getattr(runner.optim_wrapper, 'grad_norm', None)),
            lr=runner.optim_wrapper.get_lr(),
            weights_finite=all(bool(p.isfinite().all()) for p in model.parameters()),
        )
        try:
            path = dump_batches(runner.work_dir, runner.iter + 1, self._batches, record)
        except OSError as error:  # a full disk must not end what may well go on
            return f'{text}; the batch could not be written: {error}'
        return f'{text}; written to {path}'
