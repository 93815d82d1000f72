import importlib.util

from .nyu import NYURGBDPairs
from .paired_dataset import PairedModalityDataset, require_data_root
from .sketchy import SketchyImages, SketchyPairs
from .tuberlin import TUBerlin

__all__ = [
    'NYURGBDPairs',
    'PairedModalityDataset',
    'SketchyImages',
    'SketchyPairs',
    'TUBerlin',
    'require_data_root',
]

# mmseg is only needed for fine-tuning; distillation must do without it.
if importlib.util.find_spec('mmseg') is not None:
    from .nyu_seg import NYUDepthSegDataset

    __all__ += ['NYUDepthSegDataset']
