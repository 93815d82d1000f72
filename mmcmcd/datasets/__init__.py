import importlib.util

from .nyu import NYURGBDPairs
from .paired_dataset import PairedModalityDataset

__all__ = ['NYURGBDPairs', 'PairedModalityDataset']

# mmseg is only needed for fine-tuning; distillation must do without it.
if importlib.util.find_spec('mmseg') is not None:
    from .nyu_seg import NYUDepthSegDataset

    __all__ += ['NYUDepthSegDataset']
