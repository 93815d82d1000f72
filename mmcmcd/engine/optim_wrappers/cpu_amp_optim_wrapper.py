from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner.amp import autocast

from ...registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Train in bfloat16 on a CPU.

    mmengine's ``AmpOptimWrapper`` refuses to run without an accelerator.
    bfloat16 has float32's range of exponents, so no loss scaling is needed.
    """

    @contextmanager
    def optim_context(self, model):
        """Run the forward pass under autocast.

        Args:
            model (nn.Module): The model that is trained.
        """
        with (
            super().optim_context(model),
            autocast(device_type='cpu', dtype=torch.bfloat16),
        ):
            yield
