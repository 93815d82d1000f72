import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook

from ...registry import HOOKS


@HOOKS.register_module()
class SkippedPairsHook(Hook):
    """Warn about pairs that were skipped because a file was unreadable.

    Counts over all processes and workers, at the end of each epoch.  Useful
    with ``on_unreadable='skip'`` of the paired data set.
    """

    def __init__(self):
        self._before = 0

    def after_train_epoch(self, runner):
        """Log how many pairs were skipped in this epoch.

        Args:
            runner (Runner): The runner.
        """
        skipped = torch.tensor(_count(runner.train_dataloader.dataset))
        all_reduce(skipped)
        total = int(skipped)
        if total > self._before:
            runner.logger.warning(
                f'{total - self._before} unreadable pairs were skipped in '
                f'epoch {runner.epoch + 1}, {total} since the start; '
                'tools/misc/audit_pairs.py names the files.'
            )
        self._before = total


def _count(dataset):
    """Sum ``num_skipped`` over a data set and those that it wraps."""
    inner = [
        *getattr(dataset, 'datasets', ()),
        *([dataset.dataset] if hasattr(dataset, 'dataset') else ()),
    ]
    own = int(getattr(dataset, 'num_skipped', 0))
    return own + sum(_count(wrapped) for wrapped in inner)
