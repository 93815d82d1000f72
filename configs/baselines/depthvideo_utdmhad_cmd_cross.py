# CMD alone, across modalities; temperatures of the cmcd file.
_base_ = '../cmcd/depthvideo_utdmhad.py'
model = dict(losses=dict(_delete_=True, cmd_cross=dict(
    type='mmcmcd.CMDLoss', form='cross', teacher_temperature=0.1,
    student_temperature=0.2)))
