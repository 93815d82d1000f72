from .classifiers import ZeroLabelClassifier
from .data_preprocessors import PairedDataPreprocessor
from .distillers import CrossModalDistiller, FrozenTeacher
from .losses import CMCDLoss, CMCLoss, CMDLoss
from .memory import FeatureQueue

__all__ = [
    'CMCDLoss',
    'CMCLoss',
    'CMDLoss',
    'CrossModalDistiller',
    'FeatureQueue',
    'FrozenTeacher',
    'PairedDataPreprocessor',
    'ZeroLabelClassifier',
]
