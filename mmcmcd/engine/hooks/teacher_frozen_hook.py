from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop

from ...errors import CheckpointError, ConfigError
from ...registry import HOOKS

_META_KEY = 'teacher_sha256'


@HOOKS.register_module()
class TeacherFrozenHook(Hook):
    """Check that the teacher is not trained, neither by a step nor by BN.

    Before training: no tensor of the teacher is in the optimizer or among the
    model's own parameters and buffers.  Then every ``interval`` epochs and
    after training: its weights and statistics are what was loaded, by
    SHA-256, and all its modules are in eval mode.  Checkpoints store that
    hash as ``meta['teacher_sha256']``, and a run resumes, and is tested, with
    the same teacher only.

    Args:
        interval (int): Epochs between two checks. Defaults to 10.
    """

    def __init__(self, interval=10):
        self.interval = interval
        self._loaded_hash = None

    def before_train(self, runner):
        """Look for the teacher's tensors, and remember its hash.

        Args:
            runner (Runner): The runner.

        Raises:
            ConfigError: The model has no frozen teacher.
            RuntimeError: A tensor of the teacher would be trained.
        """
        teacher = _teacher(runner)
        tensors = {
            id(value): name
            for name, value in teacher.module.state_dict(
                keep_vars=True
            ).items()
        }
        trained = [
            value
            for group in runner.optim_wrapper.param_groups
            for value in group['params']
        ]
        owned = runner.model.state_dict(keep_vars=True).values()
        found = [
            tensors[id(value)]
            for value in [*trained, *owned]
            if id(value) in tensors
        ]
        if found:
            raise RuntimeError(
                f'{len(found)} tensors of the teacher are in the optimizer '
                f'or in the model ({", ".join(found[:3])}, ...): hold the '
                'teacher in a FrozenTeacher, outside the module tree.'
            )
        self._loaded_hash = teacher.state_hash()
        self._check(teacher)

    def after_train_epoch(self, runner):
        """Check every ``interval`` epochs.

        Args:
            runner (Runner): The runner.
        """
        if self.every_n_epochs(runner, self.interval):
            self._check(_teacher(runner))

    def before_save_checkpoint(self, runner, checkpoint):
        """Say in a checkpoint by which teacher its student was taught.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What will be saved; its ``meta`` is changed.
        """
        checkpoint.setdefault('meta', {})[_META_KEY] = _loaded_hash(runner)

    def after_load_checkpoint(self, runner, checkpoint):
        """Refuse to go on, or to test, with another teacher.

        Another start (``load_from``) may have another teacher.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was read.

        Raises:
            CheckpointError: The run to resume or to test had another
                teacher.
        """
        stored = checkpoint.get('meta', {}).get(_META_KEY)
        # The runner says nowhere else whether it resumes, loads or tests.
        trains = isinstance(runner._train_loop, BaseLoop)
        if stored is None or (trains and not runner._resume):
            return
        present = _loaded_hash(runner)
        if stored != present:
            raise CheckpointError(
                f'the run to {"resume" if trains else "test"} had another '
                f'teacher: its checkpoint says sha256 {stored}, the weights '
                f'of model.teacher{_teacher_file(runner)} have sha256 '
                f'{present}. Give the teacher of that run by '
                'model.teacher.init_cfg.checkpoint, or start a new run from '
                'its student: load_from=CHECKPOINT without --resume.'
            )

    def after_train(self, runner):
        """Check once more.

        Args:
            runner (Runner): The runner.
        """
        self._check(_teacher(runner))

    def _check(self, teacher):
        training = [
            name
            for name, layer in teacher.module.named_modules()
            if layer.training
        ]
        if training:
            raise RuntimeError(
                f'{len(training)} modules of the teacher are in training '
                f'mode ({", ".join(training[:3])}, ...).'
            )
        if teacher.state_hash() != self._loaded_hash:
            raise RuntimeError(
                "the teacher's weights or statistics changed since they were "
                'loaded: something wrote to them during training.'
            )


def _loaded_hash(runner):
    teacher = _teacher(runner)
    teacher.load()
    return teacher.state_hash()


def _teacher_file(runner):
    model = runner.cfg.get('model') or {}
    init_cfg = (model.get('teacher') or {}).get('init_cfg') or {}
    checkpoint = init_cfg.get('checkpoint')
    return f" ('{checkpoint}')" if checkpoint else ''


def _teacher(runner):
    model = runner.model
    if is_model_wrapper(model):
        model = model.module
    teacher = getattr(model, 'teacher', None)
    if not hasattr(teacher, 'state_hash'):
        raise ConfigError(
            'TeacherFrozenHook needs a model with a frozen teacher, such as '
            f'mmcmcd.CrossModalDistiller; got {type(model).__name__}. Remove '
            'the hook from custom_hooks.'
        )
    return teacher
