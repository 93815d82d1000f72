# SEED (Fang et al., ICLR 2021): own teacher and queue, no batch.
# The published queue of 65,536 exceeds the 323 pairs: here a smaller one.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(
    losses=dict(_delete_=True, seed=dict(
        type='mmcmcd.CMDLoss', form='cross', candidates='memory',
        teacher_temperature=0.01, student_temperature=0.2)),
    queue=dict(type='mmcmcd.FeatureQueue', size=256,
               teacher_dim=128, student_dim=128))
