# CMC alone: the loss of CLIP and, with a locked teacher, of LiT.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(losses=dict(_delete_=True, cmc=dict(
    type='mmcmcd.CMCLoss', temperature=0.07)))
