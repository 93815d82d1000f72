import re

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict

from ...errors import CheckpointError
from ...models.utils import (
    compare_state,
    pretrained_cfgs,
    read_state_dict,
    require_pretrained,
    select_prefix,
)
from ...registry import HOOKS
from ..unwrapped import unwrapped_model

_HEAD = re.compile(r'(\w*head|fc|classifier)\.')


@HOOKS.register_module()
class VerifyPretrainedHook(Hook):
    """Refuse to train with weights that were loaded in part.

    mmengine's ``Pretrained`` loads the tensors that fit and only warns about
    the others, so that a student of another stem or depth trains from a half
    random state.  This hook compares every file named by an ``init_cfg`` with
    its module, key by key and shape by shape, before any weight is loaded.
    Heads (``*head.``, ``fc.``, ``classifier.``) may differ when no prefix is
    given.  It needs nothing of mmcmcd's models.

    Args:
        ignore (list[str]): Regular expressions of keys, without prefix, that
            may differ, e.g. ``['layer4']`` for a backbone with three stages.
            Defaults to ().
    """

    def __init__(self, ignore=()):
        self.ignore = [re.compile(pattern) for pattern in ignore]

    def before_run(self, runner):
        """Compare, when the runner is about to train.

        The runner calls this before it initialises weights, and in tests
        too, where ``Pretrained`` is not carried out.

        Args:
            runner (Runner): The runner.

        Raises:
            CheckpointError: A file is missing or does not fit its module.
        """
        if not isinstance(
            runner.optim_wrapper, (OptimWrapper, OptimWrapperDict)
        ):
            return
        for name, module in unwrapped_model(runner).named_modules():
            for init_cfg in pretrained_cfgs(getattr(module, 'init_cfg', None)):
                self._verify(name or 'model', module, init_cfg)

    def _verify(self, name, module, init_cfg):
        checkpoint = init_cfg.get('checkpoint')
        prefix = init_cfg.get('prefix') or ''
        role = f'{name}: pretrained'
        where = 'model' if name == 'model' else f'model.{name}'
        require_pretrained(checkpoint, where)
        # mmengine looks for the weights under no other key.
        state = read_state_dict(checkpoint, role, nested=('state_dict',))
        state = select_prefix(state, prefix, module, checkpoint, role)

        def ignored(key):
            if not prefix and _HEAD.match(key):
                return True
            return any(pattern.match(key) for pattern in self.ignore)

        mismatch = compare_state(module, state).without(ignored)
        if mismatch:
            raise CheckpointError(
                f"{role} checkpoint '{checkpoint}' (prefix '{prefix}') does "
                f'not fit {type(module).__name__}: {mismatch.describe()}'
            )
