from .audio_data_preprocessor import AudioDataPreprocessor
from .paired_data_preprocessor import PairedDataPreprocessor

__all__ = ['AudioDataPreprocessor', 'PairedDataPreprocessor']
