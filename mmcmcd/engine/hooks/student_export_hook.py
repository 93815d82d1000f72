from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper

from ...models.utils import export_student
from ...registry import HOOKS


@HOOKS.register_module()
class StudentExportHook(Hook):
    """Write the student alone when training ends.

    ``student-<sha8>.pth`` has ``backbone.*`` keys for stock models, and the
    text file ``last_student`` names it, as mmengine's ``last_checkpoint``
    does.  It is the student of a checkpoint's ``state_dict``, hence with an
    ``EMAHook`` the averaged one.  Training checkpoints get the student's
    config and preprocessing into their ``meta``, so that a later export knows
    them.

    Args:
        out_dir (str, optional): Directory to write to. Defaults to None: the
            runner's work directory.
    """

    def __init__(self, out_dir=None):
        self.out_dir = out_dir

    def before_save_checkpoint(self, runner, checkpoint):
        """Describe the student in a training checkpoint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What will be saved; its ``meta`` is changed.
        """
        checkpoint.setdefault('meta', {}).update(_describe(runner.cfg))

    @master_only
    def after_train(self, runner):
        """Write the student.

        Args:
            runner (Runner): The runner.
        """
        out_dir = Path(self.out_dir or runner.work_dir)
        meta = dict(
            _describe(runner.cfg), epoch=runner.epoch, iter=runner.iter
        )
        path = export_student(
            _saved_model(runner), out_dir / 'student.pth', meta=meta
        )
        (out_dir / 'last_student').write_text(path)
        runner.logger.info(f'Student written to {path}')


def _saved_model(runner):
    """The model whose weights a checkpoint has as its ``state_dict``."""
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            return hook.ema_model.module
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def _describe(cfg):
    """Config of the student and preprocessing of its images, if known."""
    model = cfg.get('model') or {}
    preprocessor = model.get('data_preprocessor') or cfg.get(
        'data_preprocessor'
    )
    found = dict(
        student=model.get('student'),
        data_preprocessor=(preprocessor or {}).get('target'),
    )
    # Plain containers: what torch.load(weights_only=True) accepts.
    return {
        key: value.to_dict() if hasattr(value, 'to_dict') else value
        for key, value in found.items()
        if value is not None
    }
