import os.path as osp
import re
from collections import deque

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook

from ...atomic_files import (
    describe_failure,
    remove_parts,
    write_bytes,
    write_text,
)
from ...errors import CheckpointError
from ...registry import HOOKS

_POINTER = 'last_checkpoint'
# In the message hub, and with it in checkpoints: the file that was written at
# a stop, and files to remove as soon as a checkpoint that does without them is
# there. Names, not paths: a run may be resumed from a copy of its directory.
_STOPPED_KEY = 'stopped_ckpt'
_OUTDATED_KEY = 'outdated_ckpts'
_BACKEND = 'mmcmcd.atomic'
_CHECKPOINTS = re.compile(rf'\.pth$|^{_POINTER}$')


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` that never leaves you without a file.

    * A checkpoint, and ``last_checkpoint`` that names it, is there complete
      or not at all, whenever the process is killed: it is written beside its
      place, brought to the disk, and then named.
    * Older ones are removed when the new one is there, not before.
    * If it cannot be written (the disk is full), older ones stay, an error
      in the log says so, and training goes on to the next interval. The last
      one of the training has no next: then the run ends with an error.
    * It can be written at any iteration, for :class:`StopOnSignalHook`; that
      file is removed when the resumed run has written one of its own.

    Args:
        interval, by_epoch, ...: See :class:`mmengine.hooks.CheckpointHook`.
            With a ``backend_args`` of one's own, files are written as that
            backend does.

    Raises:
        CheckpointError: The last checkpoint of a training could not be
            written.
    """

    def before_train(self, runner):
        """Choose the backend, and tidy up after a process that was killed.

        Args:
            runner (Runner): The runner.
        """
        super().before_train(runner)
        self._last_iter = None
        self._find_best()
        self._remove_outdated(runner)
        if type(self.file_backend) is not LocalBackend:
            return
        self.backend_args = dict(backend=_BACKEND)
        if is_main_process():
            for name in {
                *remove_parts(self.out_dir, _CHECKPOINTS),
                *remove_parts(runner.work_dir, _CHECKPOINTS),
            }:
                runner.logger.warning(
                    f'{name} was being written when an earlier process ended; '
                    'its part was removed.'
                )

    def save_stopped(self, runner, within_validation=False):
        """Write a checkpoint after the iteration that just ended.

        All processes must call this.

        Args:
            runner (Runner): The runner, in ``after_train_iter``.
            within_validation (bool): Whether it is in a validation instead,
                when the iteration has been counted already.

        Returns:
            str: Its path; an earlier one if that is of this iteration.

        Raises:
            CheckpointError: It could not be written.
        """
        done = runner.iter + (not within_validation)
        if self._last_iter == done:
            return self.last_ckpt
        name = f'iter_{done}.pth'
        path = self._path(name)
        self._outdate_stopped(runner, path)
        runner.message_hub.update_info(_STOPPED_KEY, name)
        meta = dict(epoch=runner.epoch, iter=done)
        self._save(runner, path, meta, by_epoch=False, is_last=True)
        self._remove_outdated(runner)
        return path

    def _save_checkpoint_with_step(self, runner, step, meta):
        # mmengine removes old files first, and writes in place.
        hub = runner.message_hub
        known = dict(hub.runtime_info)
        steps, surplus = self._steps_with(step)
        if self.max_keep_ckpts > 0:
            # With those too many: whoever resumes removes what a process
            # that was killed at the wrong moment could not.
            hub.update_info('keep_ckpt_ids', steps)
        path = self._path(self.filename_tmpl.format(step))
        self._outdate_stopped(runner, path)
        is_last = meta['iter'] >= runner.max_iters
        if not self._save(runner, path, meta, self.by_epoch, is_last):
            _restore(hub, known)
            return
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(steps, self.max_keep_ckpts)
        self._remove(surplus)
        self._remove_outdated(runner)

    def _outdate(self, runner, paths):
        """Remove files of this directory, after the next checkpoint."""
        hub = runner.message_hub
        names = hub.runtime_info.get(_OUTDATED_KEY, [])
        new = [
            osp.basename(p) for p in paths if osp.dirname(p) == self.out_dir
        ]
        if new:
            hub.update_info(_OUTDATED_KEY, [*names, *new])

    def _outdate_stopped(self, runner, path):
        """Do so with that of a former stop, if this is not its path."""
        hub = runner.message_hub
        stopped = hub.runtime_info.get(_STOPPED_KEY)
        hub.pop_info(_STOPPED_KEY, None)
        if stopped and self._path(stopped) != path:
            self._outdate(runner, [self._path(stopped)])

    def _remove_outdated(self, runner):
        hub = runner.message_hub
        names = hub.runtime_info.get(_OUTDATED_KEY, [])
        hub.pop_info(_OUTDATED_KEY, None)
        self._remove(map(self._path, names))

    def _steps_with(self, step):
        """The steps whose files are kept, and the paths of those too many."""
        if self.max_keep_ckpts <= 0:
            return [], []
        steps = [*(s for s in self.keep_ckpt_ids if s != step), step]
        surplus = steps[: max(0, len(steps) - self.max_keep_ckpts)]
        return steps, [
            self._path(self.filename_tmpl.format(s)) for s in surplus
        ]

    def _save(self, runner, path, meta, by_epoch, is_last):
        """Write a checkpoint and its name; say whether it is there."""
        before, self.last_ckpt = self.last_ckpt, path
        runner.message_hub.update_info('last_ckpt', path)
        for hook in runner.hooks:
            if hasattr(hook, 'prepare_checkpoint'):
                hook.prepare_checkpoint(runner)
        fault = ['']
        try:
            runner.save_checkpoint(
                self.out_dir,
                osp.basename(path),
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                pointer = osp.join(runner.work_dir, _POINTER)
                write_text(pointer, path, sync=True)
        except OSError as error:
            fault = [self._describe(error, path, {'': before})]
        # The first process writes, all have to know what came of it.
        broadcast_object_list(fault)
        if fault[0]:
            self.last_ckpt = before
            _report(runner, fault[0], is_last)
            return False
        self._last_iter = meta['iter']
        return True

    def _save_best_checkpoint(self, runner, metrics):
        # mmengine removes the former best one before it writes the new one.
        if not self.save_best:
            return
        known = dict(runner.message_hub.runtime_info)
        before = self._best_paths()
        outdated, afterwards, fault = [], [], ['']
        remove, self.file_backend.remove = (
            self.file_backend.remove,
            outdated.append,
        )
        self._save_checkpoint_with_step = lambda *args: afterwards.append(args)
        try:
            super()._save_best_checkpoint(runner, metrics)
        except OSError as error:
            fault = [self._describe(error, 'of the best metric', before)]
        finally:
            self.file_backend.remove = remove
            del self._save_checkpoint_with_step
        broadcast_object_list(fault)
        if fault[0]:
            # One of several may be there, which nobody would remove later.
            new = {*self._best_paths().values()} - {*before.values()}
            self._remove([path for path in new if path])
            # The next good one shall be compared with what is really there.
            _restore(runner.message_hub, known)
            self._set_best_paths(before)
            _report(runner, fault[0], is_last=False)
            return
        written = self._best_paths().values()
        # The checkpoint that names the former best one is there until then.
        self._outdate(runner, [old for old in outdated if old not in written])
        for args in afterwards:
            self._save_checkpoint_with_step(*args)
        if not afterwards:
            self._remove_outdated(runner)

    def _find_best(self):
        """Know the best ones again where the directory was moved to."""
        if not self.save_best:
            return
        found = {}
        for key, path in self._best_paths().items():
            moved = self._path(osp.basename(path)) if path else None
            there = moved and self.file_backend.isfile(moved)
            found[key] = moved if there else path
        self._set_best_paths(found)

    def _best_paths(self):
        if hasattr(self, 'best_ckpt_path'):
            return {'': self.best_ckpt_path} if self.best_ckpt_path else {}
        return dict(self.best_ckpt_path_dict)

    def _set_best_paths(self, paths):
        if hasattr(self, 'best_ckpt_path'):
            self.best_ckpt_path = paths.get('')
        else:
            self.best_ckpt_path_dict = paths

    def _describe(self, error, path, before):
        size = getattr(error, 'size', None)
        reason = describe_failure(error, self.out_dir, size)
        before = ', '.join(filter(None, before.values()))
        kept = (
            f'The last complete one is {before}.'
            if before
            else 'There is no earlier one of this process.'
        )
        return f'Checkpoint {path} could not be written ({reason}). {kept}'

    def _path(self, name):
        return self.file_backend.join_path(self.out_dir, name)

    def _remove(self, paths):
        if not is_main_process():
            return
        for path in paths:
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):
                # checkpoints saved by deepspeed are directories
                self.file_backend.rmtree(path)


def _restore(hub, known):
    hub.runtime_info.clear()
    hub.runtime_info.update(known)


def _report(runner, fault, is_last):
    if is_last:
        raise CheckpointError(
            f'{fault} Make room, or set default_hooks.checkpoint.out_dir to '
            'another disk, and resume from it: --resume.'
        )
    runner.logger.error(
        f'{fault} Training goes on and tries again after the next interval: '
        'make room.'
    )


class AtomicLocalBackend(LocalBackend):
    """mmengine's local backend that writes files at once."""

    def put(self, obj, filepath):
        """Write bytes: the file is there complete, or not at all.

        Args:
            obj (bytes): What.
            filepath (str | Path): Where to.

        Raises:
            OSError: With the ``size`` that was to be written.
        """
        try:
            write_bytes(filepath, obj, sync=True)
        except OSError as error:
            error.size = len(obj)
            raise


register_backend(_BACKEND, AtomicLocalBackend, force=True)
