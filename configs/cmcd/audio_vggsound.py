# A student of sound learns from a teacher of video frames on VGGSound. Frame
# and sound are of the same moment.
_base_ = [
    '../_base_/models/cmcd_resnet50.py',
    '../_base_/datasets/vggsound_pairs.py',
    '../_base_/schedules/adamw_cosine.py',
    '../_base_/distill_runtime.py',
]
model = dict(
    data_preprocessor=dict(
        target=dict(
            _delete_=True,
            type='mmcmcd.AudioDataPreprocessor',
            mel=dict(
                sampling_rate=16000, n_fft=1024, hop_length=320,
                n_mels=128))))
