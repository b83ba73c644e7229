"""A progress bar in the place of log lines, for the demo."""

from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tqdm import tqdm


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """A progress bar over the whole training, or over a test, on the main process."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._bar: tqdm[Any] = tqdm(disable=True)

    def _open(self, title: str, total: int, initial: int = 0) -> None:
        self._bar = tqdm(
            desc=title,
            total=total,
            initial=initial,
            unit='step',
            dynamic_ncols=True,
            mininterval=1,
            disable=not is_main_process(),
        )

    def before_train(self, runner: Runner) -> None:
        """Open the bar at the step that training starts or resumes from."""
        self._open('training', runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance, showing the mean loss of the last steps and the AP of the last evaluation."""
        scalars = runner.message_hub.log_scalars
        text = f'loss {scalars["train/loss"].mean(20):.2f}'
        if 'val/coco/bbox_mAP' in scalars:
            text += f', val AP {scalars["val/coco/bbox_mAP"].current():.3f}'
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()

    def before_val_epoch(self, runner: Runner) -> None:
        """Say that training pauses for an evaluation."""
        self._bar.set_description('evaluating')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say that training goes on."""
        self._bar.set_description('training')

    def after_train(self, runner: Runner) -> None:
        """Close the bar."""
        self._bar.close()

    def before_test_epoch(self, runner: Runner) -> None:
        """Open the bar of a test."""
        self._open('testing', len(runner.test_dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance."""
        self._bar.update()

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Close the bar."""
        self._bar.close()
