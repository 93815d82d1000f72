import atexit
import mmap
import multiprocessing
import os
import signal
import threading
import time

import torch
import torch.distributed as dist
from mmengine.dist import barrier, get_world_size, is_main_process
from mmengine.hooks import Hook

from ...registry import HOOKS
from .atomic_checkpoint_hook import AtomicCheckpointHook

_SAME_SIGNAL_SECONDS = 1.0


class TrainingStopped(SystemExit):
    """Training ended early, on request; the process exits with its code.

    Args:
        signum (int): The signal that asked for it.
        message (str): What was saved, and how to go on.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(128 + signum)
        self.signum = signum
        self.message = message

    def __str__(self) -> str:
        return self.message


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Ctrl-C and SIGTERM end a training where it can be resumed.

    The step is finished, a checkpoint is written by an
    :class:`AtomicCheckpointHook`, and the process exits with 128 plus the
    signal's number, as shells expect: 130 after Ctrl-C, 143 after SIGTERM. In
    a validation of a single process the batch is finished; several finish the
    validation. A second signal ends the process at once, without a
    checkpoint; but for that of Ctrl-C not within a second, because schedulers
    and launchers may both hand on the same one.

    Processes of a distributed run agree on the step by a reduction of one
    number, on the CPU; it is enough that one of them gets the signal.

    Args:
        signals (Sequence[str]): Their names; ``'SIGUSR1'`` and others may be
            added. Defaults to ``('SIGINT', 'SIGTERM')``.
    """

    # After all that belongs to the step, checkpoints included.
    priority = 'LOWEST'

    def __init__(self, signals=('SIGINT', 'SIGTERM')):
        self.signals = [signal.Signals[name] for name in signals]
        self._former = {}
        self._received = 0
        self._received_at = 0.0
        self._pid = None
        self._tells = True
        self._group = None
        # One byte that forked loader workers see, too: whether this process
        # trains.
        self._trains = mmap.mmap(-1, 1)

    def before_train(self, runner):
        """Listen, from now on.

        Args:
            runner (Runner): The runner.
        """
        self._pid, self._received = os.getpid(), 0
        self._tells = is_main_process()
        if get_world_size() > 1 and dist.get_backend() != 'gloo':
            self._group = dist.new_group(backend='gloo')
        if threading.current_thread() is threading.main_thread():
            for signum in self.signals:
                self._former[signum] = signal.signal(signum, self._receive)
            self._trains[0] = True
            for loop in (runner.train_loop, runner.val_loop):
                if loop is not None:
                    self._shield_workers(loop.dataloader)
            # Before those of multiprocessing, which end workers by a signal.
            atexit.register(self._restore)

    def after_train_iter(self, runner, batch_idx, data_batch=None, **_):
        """Save and leave, if asked to.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Of the epoch.
            data_batch (dict, optional): Of the step.
            **_ (dict): The outputs of the step.

        Raises:
            TrainingStopped: A signal came.
        """
        if signum := self._agreed():
            path = self._save(runner)
            self._stop(runner, signum, runner.iter + 1, path)

    def after_val_iter(self, runner, batch_idx, data_batch=None, **_):
        """Leave a validation within training.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Of the validation.
            data_batch (dict, optional): Of the step.
            **_ (dict): The outputs of the step.

        Raises:
            TrainingStopped: A signal came.
        """
        # Processes may have batches of other numbers to validate: they agree
        # where they have to wait for each other anyway.
        if get_world_size() == 1 and self._received:
            path = self._save(runner, within_validation=True)
            self._stop(runner, self._received, runner.iter, path)

    def after_train(self, runner):
        """Listen no more.

        Args:
            runner (Runner): The runner.
        """
        self._restore()

    def _shield_workers(self, loader):
        """Keep a loader's workers from ending by a signal to all processes.

        Terminals and schedulers send it so. The first process shall not lose
        its workers before its step is finished. torch lets them end by
        SIGTERM, so that they have to be told when it has done so.
        """
        context = loader.multiprocessing_context or multiprocessing
        if context.get_start_method() != 'fork':
            return  # they could not see the flag
        former = loader.worker_init_fn

        def init(worker_id):
            if former is not None:
                former(worker_id)
            for signum in self.signals:
                signal.signal(signum, self._receive_in_worker)

        loader.worker_init_fn = init

    def _receive_in_worker(self, signum, frame):
        if not self._trains[0]:
            os._exit(0)

    def _receive(self, signum, frame):
        since = time.monotonic() - self._received_at
        if self._received:
            if signum == signal.SIGINT or since > _SAME_SIGNAL_SECONDS:
                self._restore()
                os.kill(os.getpid(), signum)
            return
        self._received, self._received_at = signum, time.monotonic()
        # Not by a logger: Python may just be writing to its stream.
        if self._tells:
            os.write(
                2,
                b'\n%s: finishing this step, then a checkpoint is written. '
                b'Once more stops at once, without one.\n'
                % signal.Signals(signum).name.encode(),
            )

    def _agreed(self):
        """The signal that any process got, 0 if none did."""
        if get_world_size() == 1:
            return self._received
        flag = torch.tensor(self._received)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        return int(flag)

    def _save(self, runner, within_validation=False):
        for hook in runner.hooks:
            if isinstance(hook, AtomicCheckpointHook):
                return hook.save_stopped(runner, within_validation)
        return None

    def _stop(self, runner, signum, iteration, path):
        self._restore()
        message = (
            f'Stopped by {signal.Signals(signum).name} after iteration '
            f'{iteration} of {runner.max_iters}. '
        )
        if path is None:
            message += (
                'Nothing was saved: there is no '
                "default_hooks.checkpoint=dict(type='mmcmcd."
                "AtomicCheckpointHook')."
            )
        else:
            message += (
                f'Saved {path}. To go on from there, give the same command '
                'with --resume.'
            )
        if is_main_process():
            runner.logger.warning(message)
        # A launcher ends the others as soon as the first one has left.
        barrier()
        raise TrainingStopped(signum, message)

    def _restore(self):
        if os.getpid() != self._pid:
            return
        self._trains[0] = False
        atexit.unregister(self._restore)
        for signum, former in self._former.items():
            signal.signal(signum, former)
        self._former = {}
