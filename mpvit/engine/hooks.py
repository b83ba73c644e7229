"""Hooks of mmengine's training loop."""

from collections.abc import Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tqdm import tqdm

from mpvit.checkpoints.fit import check_fit

CLASS_LAYERS = 'bbox_head.cls_branches'


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Refuses a checkpoint whose tensors are not those of the model.

    mmengine loads what matches and goes on with random numbers for the rest, which shows as an
    AP of 0 much later. Only the class layers may differ, in a training that starts from
    ``load_from``: they are then trained from scratch, and a line says so.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare a checkpoint that was read with the model, before it is loaded.

        Args:
            runner: Runner that holds the model.
            checkpoint: What the file held.

        Raises:
            UserError: Tensors are missing, unexpected or of another shape.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        # fine-tuning may be for other classes; a resumed or tested model may not
        fine_tuning = runner.train_loop is not None and not runner._resume
        replaced = check_fit(
            checkpoint, model.state_dict(), may_differ=CLASS_LAYERS if fine_tuning else None
        )
        if replaced:
            runner.logger.warning(
                'The checkpoint has another number of classes: '
                f'{len(replaced)} tensors of the class layers start from scratch.'
            )


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """A progress bar over the whole training and over each evaluation, on the main process."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._train: tqdm[Any] | None = None
        self._eval: tqdm[Any] | None = None

    def before_train(self, runner: Runner) -> None:
        """Open the bar at the iteration that training starts or resumes from."""
        self._train = tqdm(
            desc='training',
            total=runner.max_iters,
            initial=runner.iter,
            unit='step',
            dynamic_ncols=True,
            disable=not is_main_process(),
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance, showing the mean loss of the last steps."""
        if self._train is None:
            return
        self._train.update()
        loss = runner.message_hub.get_scalar('train/loss').mean(20)
        self._train.set_postfix_str(f'loss {loss:.2f}{self._best(runner)}', refresh=False)

    @staticmethod
    def _best(runner: Runner) -> str:
        scalars = runner.message_hub.log_scalars
        key = 'val/coco/bbox_mAP'
        return f', val AP {scalars[key].current():.3f}' if key in scalars else ''

    def after_train(self, runner: Runner) -> None:
        """Close the bar."""
        if self._train is not None:
            self._train.close()
            self._train = None

    def _open(self, total: int, title: str) -> None:
        self._eval = tqdm(
            desc=title,
            total=total,
            unit='batch',
            leave=False,
            dynamic_ncols=True,
            disable=not is_main_process(),
        )

    def _close(self) -> None:
        if self._eval is not None:
            self._eval.close()
            self._eval = None

    def before_val_epoch(self, runner: Runner) -> None:
        """Open the bar of an evaluation."""
        self._open(len(runner.val_dataloader), 'evaluating')

    def before_test_epoch(self, runner: Runner) -> None:
        """Open the bar of a test."""
        self._open(len(runner.test_dataloader), 'testing')

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | dict[str, Any] | None = None,
        mode: str = 'train',
    ) -> None:
        if mode != 'train' and self._eval is not None:
            self._eval.update()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Close the bar."""
        self._close()

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Close the bar."""
        self._close()
