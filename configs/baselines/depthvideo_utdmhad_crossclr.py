# CrossCLR (Zolfaghari et al., ICCV 2021), its intra-modality part.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(losses=dict(_delete_=True, crossclr=dict(
    type='mmcmcd.CrossCLRLoss', temperature=0.03, negative_weight=0.8)))
