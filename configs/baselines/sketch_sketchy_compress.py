# CompRess (Koohpayegani et al., NeurIPS 2020), two queues.
# The published queue of 128,000 exceeds the 63,000 or so pairs: here fewer.
_base_ = '../cmcd/sketch_sketchy.py'
model = dict(
    losses=dict(_delete_=True, compress=dict(
        type='mmcmcd.CMDLoss', form='within', candidates='memory',
        teacher_temperature=0.04, student_temperature=0.04)),
    queue=dict(type='mmcmcd.FeatureQueue', size=16384,
               teacher_dim=2048, student_dim=2048),
    momentum_student=dict(type='ExponentialMovingAverage', momentum=0.001))
