import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook

from mmcmcd.errors import ConfigError

from ...registry import HOOKS


@HOOKS.register_module()
class SkippedPairsHook(Hook):
    """Show how many pairs were skipped because a file was broken.

    Useful with ``on_unreadable='skip'`` of the paired data set. While
    training, ``skipped_pairs`` in the log line is the number of this process
    and its workers. At the end of each epoch, and of training, a warning
    counts all processes; what two of them skipped counts twice.

    Args:
        interval (int): Iterations between two updates of the number in the
            log. Defaults to 50.

    Raises:
        ConfigError: ``interval`` is not positive.
    """

    def __init__(self, interval=50):
        if not isinstance(interval, int) or interval < 1:
            raise ConfigError(
                'SkippedPairsHook: interval must be a positive integer '
                f'(iterations), got {interval!r}.'
            )
        self.interval = interval
        self._before = 0

    def after_train_iter(self, runner, batch_idx, **_):
        """Hand the number of this process to the log, if there are any.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Of the loop.
        """
        if self.every_n_train_iters(runner, self.interval):
            skipped = _count(runner.train_dataloader.dataset)
            if skipped:
                runner.message_hub.update_scalar(
                    'train/skipped_pairs', skipped
                )

    def after_train_epoch(self, runner):
        """Log how many pairs were skipped in this epoch.

        Args:
            runner (Runner): The runner.
        """
        total = _count_all(runner)
        if total > self._before:
            runner.logger.warning(
                f'{total - self._before} unreadable pairs were skipped in '
                f'epoch {runner.epoch + 1}, {total} since the start; '
                'tools/misc/audit_pairs.py names the files.'
            )
        self._before = total

    def after_train(self, runner):
        """Log how many pairs were skipped in all.

        Args:
            runner (Runner): The runner.
        """
        total = _count_all(runner)
        if total:
            runner.logger.warning(
                f'Training is over without {total} unreadable pairs, which '
                'were skipped. Run tools/misc/audit_pairs.py and mend the '
                'files.'
            )


def _count_all(runner):
    """Number of skipped pairs over all processes."""
    skipped = torch.tensor(_count(runner.train_dataloader.dataset))
    all_reduce(skipped)
    return int(skipped)


def _count(dataset):
    """Sum ``num_skipped`` over a data set, or over those that it wraps."""
    # A wrapper may pass on the attributes of what it wraps.
    if hasattr(dataset, 'dataset'):
        return _count(dataset.dataset)
    if hasattr(dataset, 'datasets'):
        return sum(map(_count, dataset.datasets))
    return int(getattr(dataset, 'num_skipped', 0))
