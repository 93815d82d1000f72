# SEED (Fang et al., ICLR 2021): own teacher and queue, no batch.
# The published queue of 65,536 exceeds the 795 pairs: here a smaller one.
_base_ = '../cmcd/depth_nyu.py'
model = dict(
    losses=dict(_delete_=True, seed=dict(
        type='mmcmcd.CMDLoss', form='cross', candidates='memory',
        teacher_temperature=0.01, student_temperature=0.2)),
    queue=dict(type='mmcmcd.FeatureQueue', size=512,
               teacher_dim=2048, student_dim=2048))
