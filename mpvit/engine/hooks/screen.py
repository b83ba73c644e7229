"""What the terminal shows of a run: a few lines about it, a progress bar, results, what is next.

Everything else goes to the log file (``console_log_level`` in the config).
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tqdm import tqdm

from mpvit.config.reading import is_of_classifier
from mpvit.engine.hooks import detector_of
from mpvit.engine.optimizer import AutocastOptimWrapper
from mpvit.errors import listed
from mpvit.processors import available

_AP = 'coco/bbox_mAP'
_WARM, _JUDGED = 5, 25  # steps after which the time of a step is taken, and judged
_LONG = timedelta(days=1)
#: Columns of the table of evaluations: title and metric.
_COLUMNS = {
    'AP': _AP,
    'AP50': f'{_AP}_50',
    'AP75': f'{_AP}_75',
    'small': f'{_AP}_s',
    'medium': f'{_AP}_m',
    'large': f'{_AP}_l',
}


@HOOKS.register_module()
class ScreenHook(Hook):
    """Shows a training or a test on the terminal of the main process.

    Results go to stdout, the bar to stderr. Where that is no terminal, a line is printed from time
    to time instead of the bar.

    Args:
        seconds: Time between those lines.
    """

    priority = 'VERY_LOW'

    def __init__(self, seconds: float = 30) -> None:
        self._seconds = seconds
        self._start = self._said = time.monotonic()
        self._warm = self._start
        self._first_step = 0
        self._result = ''
        self._bar: tqdm[Any] = tqdm(disable=True)

    def before_train(self, runner: Runner) -> None:
        """Say what is trained on what, and open the bar at the step that training goes on from."""
        self._start = self._said = time.monotonic()
        self._first_step = runner.iter
        for title, text in _summary(runner):
            _say(f'{title:<9}{text}')
        for note in getattr(runner, 'notes', ()):
            _say(note)
        self._open('training', runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance, showing the mean loss of the last steps, the lr and the last AP."""
        scalars = runner.message_hub.log_scalars
        text = f'loss {scalars["train/loss"].mean(20):.2f}, lr {_lr(runner):.2g}'
        if self._result:
            text += f', {self._result}'
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()
        now = time.monotonic()
        self._judge(runner, runner.iter + 1, now)
        if self._bar.disable and now - self._said >= self._seconds:
            self._said = now
            done = runner.iter + 1
            each = (now - self._start) / (done - self._first_step)
            rest = timedelta(seconds=round(each * (runner.max_iters - done)))
            _say(
                f'step {done}/{runner.max_iters}, {text}, {each:.2f} s a step, {rest} left',
                sys.stderr,
            )

    def _judge(self, runner: Runner, done: int, now: float) -> None:
        """Warn once if the training takes long, which is not said of classifiers: they all do."""
        if done - self._first_step == _WARM:
            self._warm = now
        if done - self._first_step != _JUDGED or is_of_classifier(runner.cfg):
            return
        each = (now - self._warm) / (_JUDGED - _WARM)
        rest = timedelta(seconds=each * (runner.max_iters - done))
        if rest > _LONG:
            where, other = ('GPU', '') if get_device() == 'cuda' else ('CPU', ', on a GPU')
            line = (
                f'At {each:.2g} s a step this training takes {rest / _LONG:.1f} days on this '
                f'{where}; shorter with fewer --epochs, a smaller --image-size or model{other}'
            )
            _say(line)
            runner.logger.info(line)

    def before_val_epoch(self, runner: Runner) -> None:
        """Say that training pauses for an evaluation."""
        self._bar.set_description('evaluating')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Print a row of the table of evaluations, and go on."""
        self._bar.set_description('training')
        if metrics:
            values = _chosen(metrics)
            if not self._result:
                _say(f'{"epoch":>7}{_row(values)}')
            _say(f'{runner.epoch:>7}{_row(values.values())}')
            title, value = next(iter(values.items()))
            self._result = f'{title} {value:.3f}'

    def after_train(self, runner: Runner) -> None:
        """Close the bar; say what came out and what can be done with it."""
        self._bar.close()
        seconds = round(time.monotonic() - self._start)
        done, wanted = runner.iter, runner.max_iters
        ended = 'Finished' if done >= wanted else f'Ended at step {done:,} of {wanted:,}'
        _say(f'{ended} after {timedelta(seconds=seconds)}. Log: {_short(runner._log_dir)}')
        for line in _next_commands(runner):
            _say(line)

    def before_test_epoch(self, runner: Runner) -> None:
        """Open the bar of a test."""
        self._open('testing', len(runner.test_dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance."""
        self._bar.update()

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Close the bar and print the numbers."""
        self._bar.close()
        if metrics:
            values = _chosen(metrics)
            _say(_row(values))
            _say(_row(values.values()))
        _say(f'Written to {_short(runner.work_dir)}. Log: {_short(runner._log_dir)}')

    def _open(self, title: str, total: int, initial: int = 0) -> None:
        self._bar = tqdm(
            desc=title,
            total=total,
            initial=initial,
            unit='step',
            dynamic_ncols=True,
            mininterval=1,
            disable=not (is_main_process() and sys.stderr.isatty()),
        )


def _say(line: str, file: TextIO | None = None) -> None:
    """Print a line above the bar, on stdout by default."""
    if is_main_process():
        file = file or sys.stdout
        tqdm.write(line, file=file)
        file.flush()


def _chosen(metrics: dict[str, float]) -> dict[str, float]:
    """The numbers to show by their titles; all of what is no detector's."""
    if _AP in metrics:
        return {title: metrics[key] for title, key in _COLUMNS.items() if key in metrics}
    return {name.rpartition('/')[2]: value for name, value in metrics.items()}


def _row(cells: Iterable[str | float]) -> str:
    return ''.join(f'{c:>8}' if isinstance(c, str) else f'{c:8.3f}' for c in cells)


def _largest_lr(runner: Runner) -> float:
    """The learning rate after the warm-up, as it was scaled with the batch."""
    groups = runner.optim_wrapper.optimizer.param_groups
    return max(group.get('initial_lr', group['lr']) for group in groups)


def _lr(runner: Runner) -> float:
    return max(group['lr'] for group in runner.optim_wrapper.optimizer.param_groups)


def _summary(runner: Runner) -> Iterator[tuple[str, str]]:
    """The facts about a training that its user should see before it runs."""
    model = detector_of(runner)
    count = sum(p.numel() for p in model.parameters())
    parts = [type(model).__name__, type(getattr(model, 'backbone', model)).__name__]
    yield 'Model', f'{" with ".join(dict.fromkeys(parts))}, {count / 1e6:.1f}M parameters'
    data = runner.train_dataloader.dataset
    classes = data.metainfo.get('classes') or ()
    val = runner.val_loop
    judged = f', {len(val.dataloader.dataset):,} to validate' if val is not None else ''
    yield 'Data', f'{len(data):,} images to train{judged}'
    yield 'Classes', f'{len(classes)}: {listed(classes)}'
    batch = runner.train_dataloader.batch_size
    counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    images = batch * runner.world_size * counts
    yield 'Batch', f'{images} images a step ({batch} x {runner.world_size} processes x {counts})'
    schedule = f'{len(runner.train_dataloader):,} x {runner.max_epochs} epochs'
    yield 'Steps', f'{schedule}, lr up to {_largest_lr(runner):.2g}'
    yield 'Device', f'{_device()}, {_precision(runner)}'
    yield 'Outputs', _short(runner.work_dir)
    if runner.iter:
        yield 'Resumed', f'at step {runner.iter:,} of {runner.max_iters:,}'


def _device() -> str:
    if get_device() == 'cuda':
        return torch.cuda.get_device_name()
    return f'{get_device().upper()}, {torch.get_num_threads()} threads for {available()} processors'


def _precision(runner: Runner) -> str:
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, AutocastOptimWrapper):
        return 'mixed precision, bf16'
    return 'mixed precision, fp16' if isinstance(wrapper, AmpOptimWrapper) else 'fp32'


def _next_commands(runner: Runner) -> Iterator[str]:
    """The best checkpoint of a training and the commands that use it, ready to paste."""
    hub = runner.message_hub
    score, best = (hub.runtime_info.get(key) for key in ('best_score', 'best_ckpt'))
    path = best or hub.runtime_info.get('last_ckpt')
    if not path:
        return
    classifies = is_of_classifier(runner.cfg)
    if best and score is not None:
        yield f'Best {"top-1" if classifies else "AP"} {float(score):.3f} in {_short(best)}'
    config = _short(Path(runner.work_dir) / Path(runner.cfg.filename or 'config.py').name)
    model = _short(path)
    yield 'Next:'
    if runner.iter < runner.max_iters and not runner.train_loop.stop_training:  # it was paused
        yield f'  mpvit train {config} --work-dir {_short(runner.work_dir)} --resume'
    yield f'  mpvit test {config} {model}'
    if classifies:
        yield f'  mpvit train CONFIG --pretrained {model}'
        return
    yield f'  mpvit infer {config} {model} IMAGES'
    yield f'  mpvit export {config} {model} --out {_short(Path(runner.work_dir) / "model.onnx")}'


def _short(path: str | os.PathLike[str]) -> str:
    """A path as one would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith('..') else relative
