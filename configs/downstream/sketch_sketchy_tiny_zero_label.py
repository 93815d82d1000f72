# The tiny recipe without any labelled sketch, see sketch_sketchy_zero_label.
_base_ = '../cmcd/sketch_sketchy_tiny.py'

model = dict(
    type='mmcmcd.ZeroLabelClassifier',
    teacher_head=dict(
        type='LinearClsHead',
        num_classes=75,
        in_channels=256,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/photo_sketchy_tiny_r18_le/iter_500.pth',
            prefix='head.')))
val_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
