from mmengine.hooks import Hook
from mmengine.runner import BaseLoop

from ...errors import CheckpointError, ConfigError
from ...registry import HOOKS
from ..unwrapped import unwrapped_model

_META_KEY = 'teacher_sha256'


@HOOKS.register_module()
class TeacherFrozenHook(Hook):
    """Check that the teacher is not trained, neither by a step nor by BN.

    Of a distiller with several teachers, all are checked; their hash is one
    of all of their hashes.

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
            where, files = _places(runner)
            raise CheckpointError(
                f'the run to {"resume" if trains else "test"} had another '
                f'teacher: its checkpoint says sha256 {stored}, the weights '
                f'of {where}{files} have sha256 {present}. Give the teacher '
                f'of that run by {where}.init_cfg.checkpoint, or start a new '
                'run from its student: load_from=CHECKPOINT without --resume.'
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


def _places(runner):
    """Where the config has the teacher, and the files that it names."""
    model = runner.cfg.get('model') or {}
    several = model.get('teachers')
    if several:
        sides = ','.join(several)
        sides = f'{{{sides}}}' if len(several) > 1 else sides
        where = f'model.teachers.{sides}.backbone'
        backbones = [cfg.get('backbone') for cfg in several.values()]
    else:
        where, backbones = 'model.teacher', [model.get('teacher')]
    init_cfgs = [(cfg or {}).get('init_cfg') or {} for cfg in backbones]
    files = [repr(i['checkpoint']) for i in init_cfgs if 'checkpoint' in i]
    return where, f' ({", ".join(files)})' if files else ''


def _teacher(runner):
    """The model's teacher, or its teachers, who are asked as one."""
    model = unwrapped_model(runner)
    for name in ('teacher', 'teachers'):
        teacher = getattr(model, name, None)
        if hasattr(teacher, 'state_hash'):
            return teacher
    raise ConfigError(
        'TeacherFrozenHook needs a model with a frozen teacher, such as '
        'mmcmcd.CrossModalDistiller or mmcmcd.MultiModalDistiller; got '
        f'{type(model).__name__}. Remove the hook from custom_hooks.'
    )
