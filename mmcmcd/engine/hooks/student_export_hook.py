from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import EMAHook, Hook

from ...datasets.transforms.arrays import read_statistics
from ...models.utils import export_student
from ...registry import HOOKS
from ..unwrapped import unwrapped_model


@HOOKS.register_module()
class StudentExportHook(Hook):
    """Write the student alone when training ends.

    ``student-<sha8>.pth`` has ``backbone.*`` keys for stock models, or all
    of its keys if it is a stock model itself, and the text file
    ``last_student`` names it, as mmengine's ``last_checkpoint`` does.  It is
    the student of a checkpoint's ``state_dict``, hence with an ``EMAHook``
    the averaged one.  Training checkpoints get the student's
    config, preprocessing and normalisation into their ``meta``, so that a
    later export knows them.

    Of a distiller with named students each is written, as
    ``student-<side>-<sha8>.pth`` and ``last_student_<side>``.

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
        model = _saved_model(runner)
        # One student is no mapping, and has no name.
        for side in getattr(model, 'students', [None]):
            self._write(runner, model, side)

    def _write(self, runner, model, side):
        name, pointer = 'student', 'last_student'
        meta = _describe(runner.cfg)
        if side is not None:
            name, pointer = f'{name}-{side}', f'{pointer}_{side}'
            meta = meta.get('students', {}).get(side, {})
        meta = dict(meta, epoch=runner.epoch, iter=runner.iter)
        out_dir = Path(self.out_dir or runner.work_dir)
        path = export_student(
            model, out_dir / f'{name}.pth', meta=meta, student=side
        )
        (out_dir / pointer).write_text(path)
        runner.logger.info(f'Student written to {path}')


def _saved_model(runner):
    """The model whose weights a checkpoint has as its ``state_dict``."""
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            return hook.ema_model.module
    return unwrapped_model(runner)


def _describe(cfg):
    """What each student is and how its inputs are prepared, if known."""
    model = cfg.get('model') or {}
    preprocessor = (
        model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    )
    loader = cfg.get('train_dataloader')
    if 'students' not in model:
        return _plain(model.get('student'), preprocessor, loader, 'target')
    return dict(
        students={
            side: _plain(student, preprocessor, loader, side)
            for side, student in model['students'].items()
        }
    )


def _plain(student, preprocessor, loader, side):
    """Plain containers: what torch.load(weights_only=True) accepts."""
    found = dict(
        student=student,
        # A whole model has its own.
        data_preprocessor=preprocessor.get(side)
        or (student or {}).get('data_preprocessor'),
        array_normalization=_array_normalization(loader, side),
    )
    return {
        key: value.to_dict() if hasattr(value, 'to_dict') else value
        for key, value in found.items()
        if value is not None
    }


def _array_normalization(loader, side):
    """Mean and std by which the pipeline normalises the arrays of a side.

    Numbers, because a file of statistics may be written anew.
    """
    for transform in _transforms_of(loader, side):
        if str(transform.get('type')).endswith('NormalizeArray'):
            if transform.get('statistics') is not None:
                transform = read_statistics(
                    transform['statistics'], transform['side']
                )
            return dict(mean=transform['mean'], std=transform['std'])
    return None


def _transforms_of(node, side):
    """All transforms in a config that work on one side alone."""
    if isinstance(node, dict):
        sides = node.get('sides')
        if str(node.get('type')).endswith('OnSide') and (
            side == sides or (not isinstance(sides, str) and side in sides)
        ):
            yield from node['transforms']
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from _transforms_of(part, side)
