# CMC with soft targets: ALBEF (Li et al., NeurIPS 2021), one teacher.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(losses=dict(_delete_=True, cmcd_blend=dict(
    type='mmcmcd.CMCDBlendLoss', alpha=0.4, temperature=0.07,
    teacher_temperature=0.07)))
