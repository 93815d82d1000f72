from .base import Memory, PairwiseLoss
from .cmc_loss import CMCLoss
from .cmcd_loss import CMCDLoss
from .cmd_loss import CMDLoss
from .crd_loss import CRDLoss
from .feature_l2_loss import FeatureL2Loss
from .prototype_loss import PrototypeLoss

__all__ = [
    'CMCDLoss',
    'CMCLoss',
    'CMDLoss',
    'CRDLoss',
    'FeatureL2Loss',
    'Memory',
    'PairwiseLoss',
    'PrototypeLoss',
]
