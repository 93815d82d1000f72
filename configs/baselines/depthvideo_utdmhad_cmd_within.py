# CMD alone, within each modality, as in the cmcd file.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(losses=dict(_delete_=True, cmd_within=dict(
    type='mmcmcd.CMDLoss', form='within', teacher_temperature=0.1,
    student_temperature=0.2)))
