# CompRess (Koohpayegani et al., NeurIPS 2020), two queues.
# The published queue of 128,000 exceeds the 323 pairs: here a smaller one.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(
    losses=dict(_delete_=True, compress=dict(
        type='mmcmcd.CMDLoss', form='within', candidates='memory',
        teacher_temperature=0.04, student_temperature=0.04)),
    queue=dict(type='mmcmcd.FeatureQueue', size=256,
               teacher_dim=128, student_dim=128),
    momentum_student=dict(type='ExponentialMovingAverage', momentum=0.001))
