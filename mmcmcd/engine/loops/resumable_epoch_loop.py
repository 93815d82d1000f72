from mmengine.runner import EpochBasedTrainLoop

from ...errors import CheckpointError, ConfigError
from ...registry import LOOPS


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop`` that can resume within an epoch.

    mmengine's own begins the epoch again, and trains a part of it twice.
    Which samples the epoch has had is told by ``ExactResumeHook``.

    Args:
        runner, dataloader, max_epochs, val_begin, val_interval,
            dynamic_intervals: See
            :class:`mmengine.runner.EpochBasedTrainLoop`.

    Raises:
        CheckpointError: The run to resume had epochs of another length.
        ConfigError: It stopped within an epoch, and the hook is missing.
    """

    def run_epoch(self):
        """Iterate an epoch, or what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)
        # A run may have stopped before what follows on an epoch's last step.
        if done != len(self.dataloader):
            self._leave_out(done)
            for idx, data_batch in enumerate(self.dataloader, done):
                self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _leave_out(self, done):
        length = len(self.dataloader)
        if not 0 <= done < length:
            raise CheckpointError(
                f'the run to resume has made {self._iter} iterations in '
                f'{self._epoch} epochs, which are now {length} iterations '
                'long: the data set, the batch size or the number of '
                'processes is another. Resume with those of that run, or '
                'start a new run from its student: load_from=CHECKPOINT '
                'without --resume.'
            )
        if not done:
            return
        if not hasattr(self.dataloader.sampler, 'skip'):
            raise ConfigError(
                f'the run to resume stopped within epoch {self._epoch + 1}, '
                f'after {done} of {length} iterations. To go on from there, '
                "add dict(type='mmcmcd.ExactResumeHook') to custom_hooks."
            )
        self.dataloader.sampler.skip(done * self.dataloader.batch_size)
