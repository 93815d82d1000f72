from .base import Memory, PairwiseLoss
from .cmc_loss import CMCLoss
from .cmcd_loss import CMCDLoss
from .cmd_loss import CMDLoss

__all__ = ['CMCDLoss', 'CMCLoss', 'CMDLoss', 'Memory', 'PairwiseLoss']
