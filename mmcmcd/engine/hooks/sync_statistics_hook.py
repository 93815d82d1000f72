from mmengine.dist import all_reduce_params
from mmengine.hooks import EMAHook, Hook
from torch.nn.modules.batchnorm import _NormBase

from ...registry import HOOKS


@HOOKS.register_module()
class SyncStatisticsHook(Hook):
    """Give all processes the mean of their running statistics.

    After each training epoch and before each validation, so that all
    processes validate, and save, one network.  mmengine's
    ``SyncBuffersHook`` averages every buffer, through float32: the group
    numbers of a :class:`FeatureQueue` do not survive that.  Here only
    ``running_mean`` and ``running_var`` of normalisation layers are touched,
    in the model and in the copy of an ``EMAHook``.
    """

    def after_train_epoch(self, runner):
        """Average before checkpoints are written.

        Args:
            runner (Runner): The runner.
        """
        _average_statistics(runner)

    def before_val_epoch(self, runner):
        """Average where validation comes within an epoch.

        Args:
            runner (Runner): The runner.
        """
        # Once more after an epoch's end does not change equal statistics.
        _average_statistics(runner)


def _average_statistics(runner):
    models = [
        runner.model,
        *(h.ema_model for h in runner.hooks if isinstance(h, EMAHook)),
    ]
    statistics = [
        value
        for model in models
        for layer in model.modules()
        if isinstance(layer, _NormBase)
        for value in (layer.running_mean, layer.running_var)
        if value is not None
    ]
    all_reduce_params(statistics, op='mean')
