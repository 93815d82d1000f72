# depth_nyu_dense.py whose student is a whole segmentor: 16 of 128 pairs of a
# batch are out of the labelled ones, which few_100.txt lists.
_base_ = ['./depth_nyu_dense.py']
_norm = dict(type='BN', requires_grad=True)
model = dict(
    type='mmcmcd.JointDistiller',
    # Targets go through the student's own.
    data_preprocessor=dict(target=None),
    student=dict(
        _delete_=True,
        type='mmseg.EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[0.28], std=[0.15], pad_val=0,
            seg_pad_val=255, size=(240, 320)),
        backbone=dict(type='ResNet', depth=50, in_channels=1, norm_cfg=_norm),
        decode_head=dict(
            type='FCNHead', in_channels=[512, 1024, 2048], in_index=[1, 2, 3],
            input_transform='resize_concat', channels=512, num_convs=1,
            concat_input=False, dropout_ratio=0.1, num_classes=40,
            norm_cfg=_norm, align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0)),
        train_cfg=dict(),
        test_cfg=dict(mode='whole')),
    task_weight=1.0)
_pairs = _base_.train_dataloader.dataset
train_dataloader = dict(
    sampler=dict(
        type='mmcmcd.MultiSourceSampler', batch_size=128, source_ratio=(1, 7)),
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                _pairs,
                ann_file='splits/few_100.txt',
                seg_map=dict(folder='label40', suffix='.png'),
                pipeline=[
                    dict(type='mmseg.LoadAnnotations'), *_pairs.pipeline]),
            _pairs,
        ]))
# The student's stock validation, on depth alone.
val_dataloader = dict(
    batch_size=1,
    dataset=dict(
        _delete_=True,
        type='mmcmcd.NYUDepthSegDataset',
        data_root=_pairs.data_root,
        ann_file='splits/test.txt',
        pipeline=[
            dict(type='mmcmcd.LoadDepthFromFile', depth_scale=1000.,
                 expected_dtype='uint16', min_valid_fraction=0.01),
            dict(type='mmseg.Resize', scale=(320, 240),
                 interpolation='nearest'),
            dict(type='mmseg.LoadAnnotations'),
            dict(type='mmcmcd.NormalizeDepth', mode='range', max_depth=10.),
            dict(type='mmseg.PackSegInputs')],
        test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='mmseg.IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
del _norm, _pairs
