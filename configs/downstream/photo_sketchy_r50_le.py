# A classifier of photos on the frozen teacher. Its head classifies sketches
# without any labelled sketch: see sketch_sketchy_zero_label.py.
_base_ = [
    '../_base_/datasets/sketchy_photo_cls.py',
    '../_base_/cls_runtime.py',
    '../_base_/schedules/cls_linear.py',
]
_teacher = ('https://mmassets.onedl.ai/mmselfsup/1.x/mocov3/'
            'mocov3_resnet50_8xb512-amp-coslr-800e_in1k/'
            'mocov3_resnet50_8xb512-amp-coslr-800e_in1k_20220927-e043f51a.pth')
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=125,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True),
    backbone=dict(
        type='ResNet',
        depth=50,
        frozen_stages=4,
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained', checkpoint=_teacher, prefix='backbone.')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=125,
        in_channels=2048,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5)))
del _teacher
