# No labelled sketch: the head of a photo classifier on the same teacher
# (photo_sketchy_r50_le.py) classifies what the student sees. Test only:
#   tools/test.py THIS work_dirs/sketch_sketchy/epoch_200.pth
_base_ = '../cmcd/sketch_sketchy.py'

model = dict(
    type='mmcmcd.ZeroLabelClassifier',
    teacher_head=dict(
        type='LinearClsHead',
        num_classes=125,
        in_channels=2048,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/photo_sketchy_r50_le/iter_5000.pth',
            prefix='head.')))
val_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
