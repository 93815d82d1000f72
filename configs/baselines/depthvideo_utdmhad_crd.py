# CRD (Tian et al., ICLR 2020), negatives of the batch and no banks.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(losses=dict(_delete_=True, crd=dict(
    type='mmcmcd.CRDLoss', temperature=0.07, loss_weight=0.8)))
