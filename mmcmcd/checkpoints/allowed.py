"""What a checkpoint may name beyond tensors, and why.

torch allows tensors, their types and plain containers by itself.
"""

import argparse

from . import stand_ins

_ONE_CYCLE = 'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'

# (stand-in, name in the file), as torch.serialization.safe_globals takes it.
ALLOWED = [
    # The curves of losses and rates in mmengine's message hub.
    (stand_ins.Curve, 'mmengine.logging.history_buffer.HistoryBuffer'),
    # Those curves, palettes and classes, random states, seeds. numpy 2 calls
    # numpy.core numpy._core, and files keep the name of their day.
    (stand_ins.NDArray, 'numpy.ndarray'),
    (stand_ins.DType, 'numpy.dtype'),
    (stand_ins.reconstruct, 'numpy.core.multiarray._reconstruct'),
    (stand_ins.reconstruct, 'numpy._core.multiarray._reconstruct'),
    (stand_ins.scalar, 'numpy.core.multiarray.scalar'),
    (stand_ins.scalar, 'numpy._core.multiarray.scalar'),
    (stand_ins.no_bytes, 'builtins.bytes'),  # the content of an empty array
    # The OneCycle schedulers keep a function of theirs in their state, and
    # HistoryBuffer four; pickle writes them as getattr(class, name).
    (stand_ins.OneCycle, _ONE_CYCLE),
    (stand_ins.get_function, 'builtins.getattr'),
    # 'args' in the training files of torchvision, DINO, MAE and DeiT:
    # attributes without behaviour.
    (argparse.Namespace, 'argparse.Namespace'),
    # mmengine's own list has it.
    (slice, 'builtins.slice'),
]
