"""Steps whose gradients are not finite: reported, and the end of training after many.

They are left out by `mpvit.engine.optimizer.FiniteOptimWrapper`.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from mpvit.engine.hooks import detector_of
from mpvit.engine.optimizer import FiniteOptimWrapper
from mpvit.engine.run_folder import last_checkpoint
from mpvit.errors import UserError
from mpvit.files.writing import NotWritten, write

_SHOWN = 8  # images named in a line
_META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'flip')


class Batch(NamedTuple):
    """A batch and what the model made of it."""

    data: Any  # as the dataloader gave it, with ``inputs`` and ``data_samples``
    outputs: Mapping[str, Any]  # losses by name


@HOOKS.register_module()
class FiniteStepHook(Hook):
    """Reports steps that `FiniteOptimWrapper` did not apply, and ends training after many.

    A step left out leaves the model as it was: batch norm statistics, which the forward pass
    changed, are put back before an average of the weights (`EMAHook`) or a checkpoint takes them.
    What the batch was is written to ``nonfinite/`` in the work folder, a ``.json`` file with the
    losses and the images by id and path, and a ``.pt`` file, which `torch.load` reads with
    ``weights_only=True``: the images as the pipeline left them, boxes ``(x1, y1, x2, y2)`` in their
    pixels, and labels.

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
            for name, value in _plain_losses(batch.outputs).items()
            if isinstance(value, str)  # not finite
        ]
        images = [
            f'{image["img_id"]} ({image["img_path"]})'
            for batch in self._batches
            for image in _images_of(batch.data)
        ]
        more = f' and {len(images) - _SHOWN} more' if len(images) > _SHOWN else ''
        text = f'{", ".join(losses) or "losses finite"}; images {", ".join(images[:_SHOWN])}{more}'
        if self._dumps >= self.max_dumps:
            return text
        self._dumps += 1
        weights = detector_of(runner).parameters()
        record = dict(
            epoch=runner.epoch + 1,
            gradient_norm=str(getattr(runner.optim_wrapper, 'grad_norm', None)),
            lr=runner.optim_wrapper.get_lr(),
            weights_finite=all(bool(p.isfinite().all()) for p in weights),
        )
        try:
            path = _dump(runner.work_dir, runner.iter + 1, self._batches, record)
        except NotWritten as error:  # a full disk must not end what may well go on
            return f'{text}; the batch could not be written: {error}'
        return f'{text}; written to {path}'


def _dump(
    work_dir: str, iteration: int, batches: Sequence[Batch], record: Mapping[str, Any]
) -> Path:
    path = Path(work_dir) / 'nonfinite' / f'iter_{iteration}_rank_{get_rank()}.json'
    content = dict(
        iteration=iteration,
        rank=get_rank(),
        **record,
        batches=[dict(losses=_plain_losses(b.outputs), images=_images_of(b.data)) for b in batches],
    )
    write(path, json.dumps(content, indent=2, default=str) + '\n')
    tensors = io.BytesIO()
    torch.save([_tensors_of(batch.data) for batch in batches], tensors)
    write(path.with_suffix('.pt'), tensors.getvalue())
    return path


def _plain_losses(outputs: Mapping[str, Any]) -> dict[str, float | str]:
    """Losses as numbers, or as a word where JSON has no number: 'nan', 'inf', '-inf'."""
    values = {name: float(torch.as_tensor(v).detach()) for name, v in outputs.items()}
    return {name: v if math.isfinite(v) else str(v) for name, v in values.items()}


def _images_of(data: Any) -> list[dict[str, Any]]:
    """What is known of the images of a batch; always with ``img_id`` and ``img_path``."""
    images = []
    for sample in _entry(data, 'data_samples'):
        known = {key: sample.get(key) for key in _META if key in sample}
        boxes = _boxes_of(sample)
        counts = dict(boxes=len(boxes), boxes_finite=bool(boxes.isfinite().all()))
        images.append(dict(img_id=None, img_path=None) | known | counts)
    return images


def _entry(data: Any, key: str) -> Sequence[Any]:
    return data.get(key, []) if isinstance(data, Mapping) else []


def _boxes_of(sample: Any) -> Tensor:
    boxes = sample.gt_instances.bboxes if 'gt_instances' in sample else torch.zeros(0, 4)
    return getattr(boxes, 'tensor', boxes).detach().cpu()  # mmdet wraps them


def _tensors_of(data: Any) -> dict[str, Any]:
    samples = _entry(data, 'data_samples')
    labels = [sample.gt_instances.labels for sample in samples if 'gt_instances' in sample]
    return dict(
        inputs=[image.detach().cpu() for image in _entry(data, 'inputs')],
        bboxes=[_boxes_of(sample) for sample in samples],
        labels=[of_image.detach().cpu() for of_image in labels],
        img_ids=[sample.get('img_id') for sample in samples],
    )
