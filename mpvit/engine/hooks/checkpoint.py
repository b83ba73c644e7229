"""Checkpoints that survive a kill, a full disk and a step in the middle of an epoch."""

import copy
import re
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, save_checkpoint
from torch import Tensor, nn

from mpvit.checkpoints.writing import NotSaved, check_finite, write_durably
from mpvit.engine.distributed import by_main_process
from mpvit.engine.hooks import detector_of
from mpvit.engine.resume import warn_of_what_stays
from mpvit.engine.run_folder import RUN, begin_run, point_to
from mpvit.errors import UserError
from mpvit.files.writing import remove_unfinished

EVALUATED = 'evaluated_iter'  # in the message hub: the step of the last evaluation
_BEST = ('best_ckpt_path', 'best_ckpt_path_dict')  # attributes of mmengine's hook
_ROLLING = 'rolling_ckpt'  # in the message hub: the file inside an epoch
_PATHS = ('best_ckpt', 'last_ckpt')  # there, beginnings of keys; in checkpoints they are names


def write_checkpoint(
    checkpoint: dict[str, Any],
    filename: str,
    file_client_args: dict[str, Any] | None = None,
    backend_args: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint durably, in the place of mmengine's function of the same arguments.

    `Runner.save_checkpoint` puts the state together and calls it (`mpvit.register`). URLs are left
    to mmengine.

    Raises:
        NotSaved: The weights or the optimizer are not finite, or the file cannot be written.
    """
    for weights in ('state_dict', 'ema_state_dict'):
        check_finite(checkpoint.get(weights, {}))
    optimizer = checkpoint.get('optimizer') or {}
    for state in (*optimizer.get('state', {}).values(), *optimizer.get('param_groups', ())):
        check_finite(state, 'optimizer states')
    if file_client_args or '://' in filename:
        save_checkpoint(checkpoint, filename, file_client_args, backend_args)
    else:
        write_durably(filename, lambda file: torch.save(checkpoint, file))


@HOOKS.register_module()
class DurableCheckpointHook(CheckpointHook):
    """mmengine's hook, such that there is a whole checkpoint at any moment.

    Every checkpoint has the id of its run, which ``run.json`` has too, and names others of the
    folder without a path, so that a folder can be moved or copied: nothing is read or deleted
    outside of it.

    An old file is deleted when the new one is complete. If one cannot be written, a warning says
    so and the training goes on, unless it was the last. After an evaluation the checkpoint is
    written again, with what came out.

    Args:
        *args: As for `CheckpointHook`.
        minutes: Inside an epoch save after so much time without a checkpoint, as ``iter_N.pth``,
            of which there is one at most; None for never.
        **kwargs: As for `CheckpointHook`.
    """

    file_backend: Any
    last_ckpt: Any

    def __init__(self, *args: Any, minutes: float | None = 30, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.minutes = minutes
        self.saved_step: int | None = None  # of the newest complete checkpoint
        self._written = 0
        self._time = time.monotonic()
        self._buffers: list[dict[str, Tensor]] | None = None

    def before_train(self, runner: Runner) -> None:
        """Find out what is there, and remove what an interrupted save left.

        Raises:
            UserError: The folder has checkpoints of another run than the one that is resumed.
        """
        self._begin(runner)
        super().before_train(runner)
        self._time = time.monotonic()
        self._find_files(runner)
        if is_main_process():
            remove_unfinished(self.out_dir)
            if not runner.iter:  # older checkpoints in the folder are not of this training
                point_to(runner.work_dir, '')

    def _begin(self, runner: Runner) -> None:
        """Go on with the run of a checkpoint, or begin one."""
        hub, folder = runner.message_hub, Path(runner.work_dir)
        resumed = str(hub.runtime_info.get(RUN) or '') if runner.iter else None
        source = runner._load_from or ''
        run = by_main_process(lambda: begin_run(folder, resumed, source))
        if run is not None:
            hub.update_info(RUN, run)
        # what a checkpoint says becomes names of files that are deleted
        if 'keep_ckpt_ids' in hub.runtime_info:
            kept = [step for step in hub.get_info('keep_ckpt_ids') if isinstance(step, int)]
            hub.update_info('keep_ckpt_ids', kept)
        if not re.fullmatch(r'iter_\d+\.pth', str(hub.runtime_info.get(_ROLLING))):
            hub.update_info(_ROLLING, None)

    def _find_files(self, runner: Runner) -> None:
        """Find the files that a checkpoint names in this folder, wherever it was written."""
        info = runner.message_hub.runtime_info
        for key in [key for key in info if key.startswith(_PATHS)]:
            name = Path(str(info[key])).name
            path = self.file_backend.join_path(self.out_dir, name)
            is_own = name.endswith('.pth') and name.startswith('best_') == key.startswith('best_')
            found = path if is_own and self.file_backend.isfile(path) else None
            runner.message_hub.update_info(key, found)
        if hasattr(self, 'best_ckpt_path'):
            self.best_ckpt_path = info.get('best_ckpt')
        for indicator in getattr(self, 'best_ckpt_path_dict', {}):
            self.best_ckpt_path_dict[indicator] = info.get(f'best_ckpt_{indicator}')
        if runner.iter:
            self.saved_step = runner.iter
            self.last_ckpt = info.get('last_ckpt') or runner._load_from

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint inside an epoch."""
        return self.minutes is not None and time.monotonic() - self._time > 60 * self.minutes

    def save_in_epoch(self, runner: Runner) -> None:
        """Save between two steps, unless that was done; every rank has to call it.

        Raises:
            NotSaved: It cannot be written.
        """
        if get_world_size() > 1:  # first of all, since only the main process knows if it saved
            self._buffers = all_gather_object(_buffers(detector_of(runner)))
        try:
            if self.saved_step == runner.iter:
                return
            name = f'iter_{runner.iter}.pth'
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save(runner, name, meta, {_ROLLING: name})
        finally:
            self._buffers = None

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the best checkpoint, and the last one with what the evaluation changed."""
        runner.message_hub.update_info(EVALUATED, runner.iter)
        written = self._written
        super().after_val_epoch(runner, metrics)
        step = runner.epoch if self.by_epoch else runner.iter
        is_last = Path(str(self.last_ckpt)).name == self.filename_tmpl.format(step)
        if is_last and self.saved_step == runner.iter and self._written == written:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add what only this process or a started accumulation knows; leave out the folder."""
        info = checkpoint['message_hub']['runtime_info']
        for key in [key for key in info if key.startswith(_PATHS) and info[key]]:
            info[key] = Path(str(info[key])).name
        if 'optimizer' not in checkpoint:
            return
        if self._buffers is not None:
            checkpoint['rank_buffers'] = self._buffers
        if get_world_size() == 1 and is_accumulating(runner):
            named = detector_of(runner).named_parameters()
            checkpoint['gradients'] = {n: p.grad.cpu() for n, p in named if p.grad is not None}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take up what `before_save_checkpoint` added."""
        buffers = checkpoint.pop('rank_buffers', [])
        gradients = checkpoint.pop('gradients', {})
        if not runner._resume:
            return
        warn_of_what_stays(runner, checkpoint)
        if len(buffers) == get_world_size():
            checkpoint['state_dict'].update(buffers[get_rank()])
        if get_world_size() == 1:
            for name, parameter in detector_of(runner).named_parameters():
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter.device)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        """Save, then delete what is one too many."""
        kept = [*(old for old in getattr(self, 'keep_ckpt_ids', ()) if old != step), step]
        limit = self.max_keep_ckpts if self.max_keep_ckpts > 0 else len(kept)
        outdated, kept = kept[:-limit], kept[-limit:]
        info = {_ROLLING: None} | ({'keep_ckpt_ids': kept} if self.max_keep_ckpts > 0 else {})
        try:
            self._save(runner, self.filename_tmpl.format(step), meta, info)
        except NotSaved as error:
            if meta['iter'] >= runner.max_iters and self.saved_step != meta['iter']:
                raise UserError(f'the end of the training is lost: {error}; {self.last}') from error
            runner.logger.warning(f'No checkpoint at step {meta["iter"]}: {error}; {self.last}')
            return
        self.keep_ckpt_ids = deque(kept)
        for old in outdated:
            self._remove(self.filename_tmpl.format(old))

    def _save(
        self, runner: Runner, name: str, meta: dict[str, Any], info: Mapping[str, Any]
    ) -> None:
        """Save under a name, with entries for the message hub that hold if it succeeds."""
        hub = runner.message_hub
        path = self.file_backend.join_path(self.out_dir, name)
        info = {**info, 'last_ckpt': path}
        before = {key: hub.get_info(key) for key in info}
        hub.update_info_dict(info)
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                point_to(runner.work_dir, path)
        except NotSaved:
            hub.update_info_dict(before)
            raise
        finally:
            self._time = time.monotonic()  # if it failed, try again after the interval
        self.last_ckpt, self.saved_step = path, meta['iter']
        self._written += 1
        if before[_ROLLING] not in (None, name):
            self._remove(before[_ROLLING])

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the best checkpoint, then delete the one before."""
        backend, self.file_backend = self.file_backend, _LateRemoval(self.file_backend)
        info = dict(runner.message_hub.runtime_info)
        best = {key: copy.copy(vars(self)[key]) for key in _BEST if key in vars(self)}
        try:
            super()._save_best_checkpoint(runner, metrics)
            self.file_backend.finish()
        except NotSaved as error:
            runner.message_hub.runtime_info.clear()
            runner.message_hub.runtime_info.update(info)
            for key, value in best.items():
                setattr(self, key, value)
            runner.logger.warning(f'No best checkpoint at step {runner.iter}: {error}')
        finally:
            self.file_backend = backend

    def _remove(self, name: str) -> None:
        path = self.file_backend.join_path(self.out_dir, name)
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)

    @property
    def last(self) -> str:
        """What a training could be resumed from, in words."""
        path = self.last_ckpt
        return f'the last complete one is {path}' if path else 'there is no earlier one'


class _LateRemoval:
    """A file backend that removes files in the end."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._outdated: list[str] = []
        self._written: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._outdated.append(path)

    def join_path(self, *parts: str) -> str:
        path: str = self._backend.join_path(*parts)
        self._written.append(path)  # mmengine puts together what it writes, and only that
        return path

    def finish(self) -> None:
        for path in self._outdated:
            if path not in self._written:
                self._backend.remove(path)


def is_accumulating(runner: Runner) -> bool:
    """Whether gradients of the last steps wait for further ones before the weights change."""
    complete = getattr(runner.optim_wrapper, 'should_update', None)
    return complete is not None and not complete()


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """What ranks may hold differently: the statistics of norms that are not synchronised."""
    return {name: buffer.cpu() for name, buffer in model.named_buffers()}
