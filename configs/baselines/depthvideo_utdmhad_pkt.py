# PKT (Passalis and Tefas, ECCV 2018), the weight of RepDistiller.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(losses=dict(_delete_=True, pkt=dict(
    type='mmcmcd.PKTLoss', loss_weight=30000.)))
