# CompRess (Koohpayegani et al., NeurIPS 2020), two queues.
# The published queue exceeds the 1,580 pairs: here a smaller one.
_base_ = '../cmcd/sketch_sketchy_tiny.py'
model = dict(
    losses=dict(_delete_=True, compress=dict(
        type='mmcmcd.CMDLoss', form='within', candidates='memory',
        teacher_temperature=0.04, student_temperature=0.04)),
    queue=dict(type='mmcmcd.FeatureQueue', size=1024,
               teacher_dim=256, student_dim=256),
    momentum_student=dict(type='ExponentialMovingAverage', momentum=0.001))
