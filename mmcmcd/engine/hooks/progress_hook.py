import sys
import time

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.utils import ProgressBar

from mmcmcd.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """One progress bar with an ETA, for runs whose log is kept quiet.

    Args:
        name (str): What is being done.
    """

    priority = 'LOWEST'

    def __init__(self, name: str) -> None:
        self.name = name
        self._steps = 0
        self._seconds = 0.0
        self._bar = None

    @property
    def seconds_per_step(self) -> float:
        """Mean time of a training iteration, loading included."""
        return self._seconds / max(self._steps, 1)

    def before_train(self, runner) -> None:
        """Start the bar."""
        if is_main_process():
            print(self.name)
            # Looked up now: the default is the stream at import time.
            self._bar = ProgressBar(
                runner.max_iters - runner.iter, 30, file=sys.stdout
            )

    def before_train_epoch(self, runner) -> None:
        """Leave validation between epochs out of the time per step."""
        self._last = time.perf_counter()

    def after_val(self, runner) -> None:
        """Leave validation between iterations out likewise."""
        self._last = time.perf_counter()

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        """Advance the bar."""
        now = time.perf_counter()
        self._seconds += now - self._last
        self._last = now
        self._steps += 1
        if self._bar is not None:
            self._bar.update()

    def after_train(self, runner) -> None:
        """End the line of the bar."""
        if self._bar is not None:
            print()
