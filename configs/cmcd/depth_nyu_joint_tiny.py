# depth_nyu_dense_tiny.py and depth_nyu_tiny_fcn_r18.py in one run: 8 of 64
# pairs of a batch are out of the 50 labelled ones.
_base_ = ['./depth_nyu_dense_tiny.py']
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
            seg_pad_val=255, size=(96, 128)),
        backbone=dict(
            type='ResNet', depth=18, base_channels=32, stem_channels=32,
            in_channels=1, norm_cfg=_norm),
        decode_head=dict(
            type='FCNHead', in_channels=[64, 128, 256], in_index=[1, 2, 3],
            input_transform='resize_concat', channels=128, num_convs=1,
            concat_input=False, dropout_ratio=0.1, num_classes=40,
            norm_cfg=_norm, align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0)),
        train_cfg=dict(), test_cfg=dict(mode='whole')),
    task_weight=1.0)
_pairs = _base_.train_dataloader.dataset
train_dataloader = dict(
    sampler=dict(
        type='mmcmcd.MultiSourceSampler', batch_size=64, source_ratio=(1, 7)),
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                _pairs,
                ann_file='few_50.txt',
                seg_map=dict(folder='label', suffix='.png'),
                pipeline=[
                    dict(type='mmseg.LoadAnnotations'), *_pairs.pipeline]),
            _pairs]))
val_dataloader = dict(
    batch_size=1,
    dataset=dict(
        _delete_=True,
        type='mmcmcd.NYUDepthSegDataset',
        data_root=_pairs.data_root,
        data_prefix=dict(img_path='depth', seg_map_path='label'),
        ann_file='val.txt',
        pipeline=[
            dict(type='mmcmcd.LoadDepthFromFile', depth_scale=25.5,
                 expected_dtype='uint8', min_valid_fraction=0.01),
            dict(type='mmseg.Resize', scale=(128, 96),
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
