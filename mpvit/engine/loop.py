"""A training loop that resumes exactly where it stopped, also inside an epoch."""

from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from mpvit.checkpoints.writing import NotSaved
from mpvit.engine.hooks.checkpoint import EVALUATED, DurableCheckpointHook, is_accumulating
from mpvit.engine.preemption import PreemptionHook
from mpvit.engine.randomness import place_samples, seed_step
from mpvit.engine.resumable import POSITION
from mpvit.errors import UserError

_SAVE = 1  # what ranks may wish besides a signal, all of which that are handled are larger


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """mmengine's loop by epochs, for trainings that are interrupted.

    A resumed training goes on with the batch after the last one and with the same random numbers
    as if it had never stopped. With a `DurableCheckpointHook` it saves inside long epochs and
    pauses at SIGTERM, SIGUSR1 and Ctrl-C.
    """

    def __init__(
        self, runner: Runner, dataloader: DataLoader | dict[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(runner, dataloader, **kwargs)
        self._batches = place_samples(self.dataloader)
        sampler = dataloader.get('sampler') if isinstance(dataloader, dict) else None
        self._has_own_order = not isinstance(sampler, dict) or sampler.get('seed') is not None
        self._first = 0  # batch of the current epoch to start from
        self._resumes_between_epochs = False
        self._preemption = PreemptionHook()
        self._checkpoints: DurableCheckpointHook | None = None

    def run(self) -> nn.Module:
        """Train, from the start or from where a resumed training stood."""
        hooks = self.runner.hooks
        self._checkpoints = next((h for h in hooks if isinstance(h, DurableCheckpointHook)), None)
        if self._checkpoints is not None and self._preemption not in hooks:
            self.runner.register_hook(self._preemption)
        self._take_up()
        hub = self.runner.message_hub
        self.runner.call_hook('before_train')
        if self._resumes_between_epochs and hub.get_info(EVALUATED) != self._iter:
            self._evaluate()  # was due when the training was interrupted, or interrupted itself
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._heed()
            if self._evaluate() and self._epoch < self._max_epochs:
                self._heed()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Train for an epoch, or for what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        batches = len(self.dataloader)
        position = dict(epoch=self._epoch, start=self._iter - self._first, batches=batches)
        self.runner.message_hub.update_info(POSITION, position)
        self._batches.seek(self.seed, self._epoch, self._first)
        for index, batch in enumerate(self.dataloader, start=self._first):
            self.run_iter(index, batch)
            if index + 1 < batches:  # at the end there is more to do first
                self._heed()
        self._first = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train on a batch."""
        seed_step(self.seed, (self._iter, self.runner.rank))
        super().run_iter(idx, data_batch)

    @property
    def seed(self) -> int:
        """Seed of the training, the same for all ranks."""
        own = self.runner._randomness_cfg.get('diff_rank_seed', False)
        return int(self.runner.seed) - (self.runner.rank if own else 0)

    def saved(self) -> str | None:
        """The checkpoint of the state after the last step, if there is one."""
        hook = self._checkpoints
        return hook.last_ckpt if hook is not None and hook.saved_step == self._iter else None

    def _take_up(self) -> None:
        """Find the batch to start from; what was read from a checkpoint says where it stood."""
        sampler = self._batches.sampler
        if not self._has_own_order and hasattr(sampler, 'seed'):
            sampler.seed = self.seed  # a resumed training has the seed of its checkpoint
        if not self._iter:
            return
        logger = self.runner.logger
        position = self.runner.message_hub.get_info(POSITION) or {}
        self._resumes_between_epochs = position.get('epoch') != self._epoch
        if not self._resumes_between_epochs:
            self._first = self._iter - position['start']
            if position['batches'] != len(self.dataloader):
                logger.warning(
                    f'Epoch {self._epoch + 1} starts anew: it has {len(self.dataloader)} batches '
                    f'and had {position["batches"]} when the checkpoint was written'
                )
                self._first = 0
        if self._epoch >= self._max_epochs:
            logger.info(f'The training of {self._max_epochs} epochs is finished already')
        elif self._first:
            logger.info(f'Going on after batch {self._first} of epoch {self._epoch + 1}')

    def _evaluate(self) -> bool:
        """Evaluate if it is time; whether it was."""
        self._decide_current_val_interval()
        last = self._epoch == self._max_epochs
        due = self._epoch >= self.val_begin and (last or self._epoch % self.val_interval == 0)
        if self.runner.val_loop is None or not due:
            return False
        self.runner.val_loop.run()
        return True

    def _heed(self) -> None:
        """Between two steps, save or pause, if any rank has a reason to."""
        hook, runner = self._checkpoints, self.runner
        if hook is None or is_accumulating(runner):  # gradients of other ranks would be lost
            return
        wish = self._preemption.agree(self._preemption.request or _SAVE * hook.is_due())
        if not wish:
            return
        try:
            hook.save_in_epoch(runner)
        except NotSaved as error:
            if wish > _SAVE:
                raise UserError(f'cannot pause the training: {error}; {hook.last}') from error
            runner.logger.warning(f'No checkpoint at step {self._iter}: {error}; {hook.last}')
        if wish > _SAVE:
            self._preemption.leave(runner, wish, str(hook.last_ckpt))
