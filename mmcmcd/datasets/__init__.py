import importlib.util

from .digits_av import DigitsAV
from .esc50 import ESC50
from .file_index import require_data_root
from .nyu import NYURGBDPairs
from .paired_dataset import PairedModalityDataset
from .sketchy import SketchyImages, SketchyPairs
from .tuberlin import TUBerlin
from .utd_mhad import UTDMHAD
from .vggsound import VGGSound

__all__ = [
    'ESC50',
    'UTDMHAD',
    'DigitsAV',
    'NYURGBDPairs',
    'PairedModalityDataset',
    'SketchyImages',
    'SketchyPairs',
    'TUBerlin',
    'VGGSound',
    'require_data_root',
]

# mmseg is only needed for fine-tuning; distillation must do without it.
if importlib.util.find_spec('mmseg') is not None:
    from .nyu_seg import NYUDepthSegDataset

    __all__ += ['NYUDepthSegDataset']
