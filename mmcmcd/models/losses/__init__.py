from .base import Memory, PairwiseLoss
from .cmc_loss import CMCLoss
from .cmcd_loss import CMCDLoss
from .cmd_loss import CMDLoss
from .feature_l2_loss import FeatureL2Loss

__all__ = [
    'CMCDLoss',
    'CMCLoss',
    'CMDLoss',
    'FeatureL2Loss',
    'Memory',
    'PairwiseLoss',
]
