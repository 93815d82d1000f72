from .base import Memory, PairwiseLoss
from .cmc_loss import CMCLoss
from .cmcd_blend_loss import CMCDBlendLoss
from .cmcd_loss import CMCDLoss
from .cmd_loss import CMDLoss
from .cosine_loss import CosineLoss
from .crd_loss import CRDLoss
from .cross_clr_loss import CrossCLRLoss
from .feature_l2_loss import FeatureL2Loss
from .pkt_loss import PKTLoss
from .prototype_loss import PrototypeLoss
from .rkd_loss import RKDLoss
from .socket_loss import SOCKETLoss

__all__ = [
    'CMCDBlendLoss',
    'CMCDLoss',
    'CMCLoss',
    'CMDLoss',
    'CRDLoss',
    'CosineLoss',
    'CrossCLRLoss',
    'FeatureL2Loss',
    'Memory',
    'PKTLoss',
    'PairwiseLoss',
    'PrototypeLoss',
    'RKDLoss',
    'SOCKETLoss',
]
