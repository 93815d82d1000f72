from .backbones import ClipConvNet, TemporalConvNet
from .classifiers import ZeroLabelClassifier
from .data_preprocessors import AudioDataPreprocessor, PairedDataPreprocessor
from .distillers import (
    Center,
    CrossModalDistiller,
    FrozenTeacher,
    JointDistiller,
    MultiModalDistiller,
)
from .losses import CMCDLoss, CMCLoss, CMDLoss, CRDLoss, FeatureL2Loss
from .memory import FeatureQueue
from .selfsup import ArraySimCLR

__all__ = [
    'ArraySimCLR',
    'AudioDataPreprocessor',
    'CMCDLoss',
    'CMCLoss',
    'CMDLoss',
    'CRDLoss',
    'Center',
    'ClipConvNet',
    'CrossModalDistiller',
    'FeatureL2Loss',
    'FeatureQueue',
    'FrozenTeacher',
    'JointDistiller',
    'MultiModalDistiller',
    'PairedDataPreprocessor',
    'TemporalConvNet',
    'ZeroLabelClassifier',
]
