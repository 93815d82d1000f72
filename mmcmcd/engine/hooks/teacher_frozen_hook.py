from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ...errors import ConfigError
from ...registry import HOOKS


@HOOKS.register_module()
class TeacherFrozenHook(Hook):
    """Check that the teacher is not trained, neither by a step nor by BN.

    Before training: no tensor of the teacher is in the optimizer or among the
    model's own parameters and buffers.  Then every ``interval`` epochs and
    after training: its weights and statistics are what was loaded, by
    SHA-256, and all its modules are in eval mode.

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
