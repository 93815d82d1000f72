from .audio_data_preprocessor import AudioDataPreprocessor
from .joint_data_preprocessor import JointDataPreprocessor
from .paired_data_preprocessor import PairedDataPreprocessor

__all__ = [
    'AudioDataPreprocessor',
    'JointDataPreprocessor',
    'PairedDataPreprocessor',
]
