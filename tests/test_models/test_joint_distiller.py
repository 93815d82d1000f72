"""A whole stock model learns its task and is distilled at once."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import export_student
from mmcmcd.registry import MODELS

SIZE = (32, 64)
NET = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
NORM = dict(type='BN', requires_grad=True)
# As in a config of mmseg.
SEGMENTOR = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[0.3], std=[0.2], size=SIZE
    ),
    backbone=dict(NET, in_channels=1, norm_cfg=NORM),
    decode_head=dict(
        type='FCNHead',
        in_channels=64,
        in_index=3,
        channels=8,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0,
        num_classes=5,
        norm_cfg=NORM,
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=32,
        in_index=2,
        channels=8,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0,
        num_classes=5,
        norm_cfg=NORM,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
CLASSIFIER = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[0.3], std=[0.2]),
    backbone=dict(NET, in_channels=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=3, in_channels=64, cal_acc=True
    ),
)
LOSSES = dict(
    losses=dict(cmd=dict(type='mmcmcd.CMDLoss')),
    dense=dict(
        cells=dict(
            loss=dict(type='mmcmcd.CMCLoss'),
            source_norm=dict(type='mmcmcd.Center', num_features=64),
        )
    ),
)


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def prefixed(segmentor):
    return dict(segmentor, type='mmseg.EncoderDecoder')


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    torch.manual_seed(0)
    path = str(tmp_path_factory.mktemp('teacher') / 'teacher.pth')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.save(MODELS.build(NET).state_dict(), path)
    return dict(NET, init_cfg=dict(type='Pretrained', checkpoint=path))


def build(teacher, student=None, kind='mmcmcd.JointDistiller', **kwargs):
    cfg = dict(
        type=kind,
        teacher=teacher,
        student=student or prefixed(SEGMENTOR),
        data_preprocessor=dict(
            type='mmcmcd.PairedDataPreprocessor',
            source=dict(mean=[120.0] * 3, std=[60.0] * 3),
            target=None,
        ),
        **LOSSES,
    )
    torch.manual_seed(1)
    model = MODELS.build(ConfigDict(copy.deepcopy({**cfg, **kwargs})))
    model.init_weights()
    return model


def build_stock(cfg, scope):
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(ConfigDict(copy.deepcopy(cfg)))


def make_batch(labelled=(0, 2), num=5, classes=False, seed=0):
    gen = torch.Generator().manual_seed(seed)
    samples = []
    for i in range(num):
        sample = DataSample(metainfo=dict(pair_id=str(i), group_index=i))
        label = torch.randint(0, 5, (1, *SIZE), generator=gen)
        if i in labelled and classes:
            sample.set_gt_label(i % 3)
        elif i in labelled:
            sample.gt_sem_seg = PixelData(data=label)
        samples.append(sample)
    return dict(
        inputs=dict(
            source=torch.randint(
                0, 256, (num, 3, *SIZE), generator=gen, dtype=torch.uint8
            ),
            target=torch.rand(num, 1, *SIZE, generator=gen),
        ),
        data_samples=samples,
    )


def losses_of(model, batch):
    """What one training step would log, and the model's gradients."""
    model.zero_grad()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    loss, log = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return log, gradients


def test_gradients_are_those_of_both_parts(teacher):
    """Against a distiller of the backbone and a stock segmentor."""
    model, batch = build(teacher, task_weight=0.7), make_batch()
    backbone = dict(SEGMENTOR['backbone'], type='mmseg.ResNet')
    distiller = build(
        teacher,
        backbone,
        'mmcmcd.CrossModalDistiller',
        data_preprocessor=dict(
            type='mmcmcd.PairedDataPreprocessor',
            source=dict(mean=[120.0] * 3, std=[60.0] * 3),
            target=dict(mean=[0.3], std=[0.2]),
        ),
    )
    stock = build_stock(SEGMENTOR, 'mmseg')
    stock.load_state_dict(model.student.state_dict())
    distiller.student.load_state_dict(stock.backbone.state_dict())
    for each in (model, distiller, stock):
        each.train()

    log, gradients = losses_of(model, batch)
    distilled, expected = losses_of(distiller, batch)
    task, parts = losses_of(
        stock,
        dict(
            inputs=[batch['inputs']['target'][i] for i in (0, 2)],
            data_samples=[
                SegDataSample(gt_sem_seg=batch['data_samples'][i].gt_sem_seg)
                for i in (0, 2)
            ],
        ),
    )
    expected = {
        name.replace('student.', 'student.backbone.'): value
        for name, value in expected.items()
    }
    for name, value in parts.items():
        name = f'student.{name}'
        expected[name] = expected.get(name, 0) + 0.7 * value
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            gradients[name], value, rtol=2e-3, atol=1e-5
        )
    torch.testing.assert_close(
        log['loss'], distilled['loss'] + 0.7 * task['loss']
    )
    for name in ('decode.loss_ce', 'aux.loss_ce'):
        torch.testing.assert_close(log[f'task.{name}'], 0.7 * task[name])
    # Statistics are neither scaled nor summed.
    assert log['task.decode.acc_seg'] == task['decode.acc_seg']
    assert log['task.labelled'] == 2


def test_a_weight_of_zero_leaves_distillation_alone(teacher):
    batch = make_batch()
    model = build(teacher, task_weight=0)
    log, gradients = losses_of(model, batch)
    assert log['loss'] == log['loss_cmd'] + log['loss_cells']
    assert not gradients['student.decode_head.conv_seg.weight'].any()


def test_the_task_sees_labelled_pairs_alone(teacher):
    model = build(teacher).train()
    batch, other = make_batch(), make_batch()
    other['inputs']['target'][[1, 3, 4]] += 0.5
    ours, theirs = (losses_of(model, b)[0] for b in (batch, other))
    assert ours['task.decode.loss_ce'] == theirs['task.decode.loss_ce']
    assert ours['loss_cmd'] != theirs['loss_cmd']


def test_parts_are_built_in_the_scope_of_the_prefix(teacher):
    model = build(teacher)
    for part in (model.student.backbone, model.student.decode_head):
        assert type(part).__module__.startswith('mmseg.')
    assert DefaultScope.get_current_instance().scope_name == 'mmpretrain'


def test_targets_are_prepared_by_the_student(teacher):
    model, batch = build(teacher), make_batch()
    own = model.student.data_preprocessor
    assert model.data_preprocessor.target is own
    target = batch['inputs']['target']
    expected = own(dict(inputs=[*target]))['inputs']
    torch.testing.assert_close(expected, (target - 0.3) / 0.2)
    for training in (True, False):
        data = model.data_preprocessor(copy.deepcopy(batch), training)
        assert torch.equal(data['inputs']['target'], expected)
    assert not any('preprocessor' in key for key in model.state_dict())


def seg_batch():
    gen = torch.Generator().manual_seed(3)
    return dict(
        inputs=[torch.rand(1, *SIZE, generator=gen) for _ in range(2)],
        data_samples=[
            SegDataSample(metainfo=dict(ori_shape=(48, 96), img_shape=SIZE))
            for _ in range(2)
        ],
    )


def test_plain_batches_are_the_students(teacher, tmp_path):
    """As the stock model predicts with what is exported, to the bit."""
    model = build(teacher)
    losses_of(model.train(), make_batch())  # new running statistics
    model.eval()
    exported = export_student(model, tmp_path / 'student.pth')
    stock = build_stock(SEGMENTOR, 'mmseg').eval()
    state = torch.load(exported, weights_only=True)['state_dict']
    stock.load_state_dict(state, strict=True)
    with torch.no_grad():
        pairs = zip(
            model.val_step(seg_batch()),
            stock.val_step(seg_batch()),
            strict=True,
        )
        for ours, theirs in pairs:
            assert ours.pred_sem_seg.shape == (48, 96)
            assert torch.equal(ours.seg_logits.data, theirs.seg_logits.data)
        images = torch.rand(2, 1, *SIZE)
        assert torch.equal(model(images), stock(images))
        for ours, theirs in zip(
            model.extract_feat(images), stock.backbone(images), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_pairs_are_embedded_and_segmented(teacher):
    model, batch = build(teacher).eval(), make_batch()
    with torch.no_grad():
        samples = model.val_step(copy.deepcopy(batch))
        target = (batch['inputs']['target'] - 0.3) / 0.2
        alone = model.student.predict(target)
        rows = model.embed_target(target)
    for sample, expected, row in zip(samples, alone, rows, strict=True):
        assert torch.equal(
            sample.pred_sem_seg.data, expected.pred_sem_seg.data
        )
        assert torch.equal(sample.target_embedding, row)
        assert sample.source_embedding.shape == (64,)


def test_queue_and_average_are_of_the_backbone(teacher):
    model = build(
        teacher,
        losses=dict(cmc=dict(type='mmcmcd.CMCLoss')),
        queue=dict(
            type='mmcmcd.FeatureQueue',
            size=16,
            teacher_dim=64,
            student_dim=64,
        ),
        momentum_student=dict(type='ExponentialMovingAverage', momentum=0.001),
        forward_chunk_size=3,
    ).train()
    log, _ = losses_of(model, make_batch())
    assert torch.isfinite(log['loss'])
    assert len(model.queue.view().student) == 5
    averaged = model.momentum_student.module['student']
    assert type(averaged) is type(model.student.backbone)


@pytest.mark.parametrize('bare', [True, False])
def test_what_is_exported_is_told_by_its_keys(teacher, bare, tmp_path):
    """A backbone that calls a part of it backbone is none the less one."""

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Conv2d(1, 2, 1)

    model = build(teacher)
    if bare:
        model.student = Wrapped()
    path = Path(export_student(model, tmp_path / 'student.pth'))
    keys = torch.load(path, weights_only=True)['state_dict'].keys()
    tops = {key.split('.')[0] for key in keys}
    if bare:
        assert keys == {
            'backbone.backbone.weight',
            'backbone.backbone.bias',
        }
    else:
        assert tops == {'backbone', 'decode_head', 'auxiliary_head'}


def test_a_classifier_learns_beside_distillation(teacher):
    student = dict(CLASSIFIER, type='mmpretrain.ImageClassifier')
    model = build(teacher, student).train()
    batch = make_batch(labelled=(1, 4), classes=True)
    log, gradients = losses_of(model, batch)
    assert log['task.labelled'] == 2 and 'task.accuracy_top-1' in log
    torch.testing.assert_close(
        log['loss'], log['loss_cmd'] + log['loss_cells'] + log['task.loss']
    )
    assert gradients['student.head.fc.weight'].any()
    stock = build_stock(CLASSIFIER, 'mmpretrain').train()
    stock.load_state_dict(build(teacher, student).student.state_dict())
    samples = [batch['data_samples'][i] for i in (1, 4)]
    alone, _ = losses_of(
        stock,
        dict(inputs=batch['inputs']['target'][[1, 4]], data_samples=samples),
    )
    torch.testing.assert_close(log['task.loss'], alone['loss'])
    model.eval()
    with torch.no_grad():
        paired = model.val_step(copy.deepcopy(batch))
        plain = model.val_step(dict(inputs=batch['inputs']['target']))
    for ours, theirs in zip(paired, plain, strict=True):
        torch.testing.assert_close(ours.pred_score, theirs.pred_score)
        assert ours.pred_label == theirs.pred_label


def segmentor(**preprocessor):
    return prefixed(
        dict(
            SEGMENTOR,
            data_preprocessor=dict(
                SEGMENTOR['data_preprocessor'], **preprocessor
            ),
        )
    )


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(student=dict(NET, in_channels=1)), 'is a ResNet, but'),
        (dict(task_weight=-1), 'task_weight=-1 must not be negative'),
        (
            dict(
                data_preprocessor=dict(
                    type='mmcmcd.PairedDataPreprocessor',
                    source=dict(),
                    target=dict(mean=[0.5], std=[0.5]),
                )
            ),
            'data_preprocessor.target=None',
        ),
        (
            dict(data_preprocessor=dict(type='ClsDataPreprocessor')),
            'Got ClsDataPreprocessor',
        ),
        (
            dict(
                student=dict(
                    CLASSIFIER,
                    train_cfg=dict(augments=dict(type='Mixup', alpha=0.2)),
                    data_preprocessor=dict(num_classes=3),
                )
            ),
            'data_preprocessor.batch_augments changes training batches',
        ),
    ],
)
def test_refuses_configs(teacher, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        build(teacher, **kwargs)


@pytest.mark.parametrize('classes', [False, True])
def test_a_batch_without_labels(teacher, classes):
    student = CLASSIFIER if classes else prefixed(SEGMENTOR)
    model = build(teacher, student)
    field = 'gt_label' if classes else 'gt_sem_seg'
    with pytest.raises(
        ConfigError, match=rf'5 pairs has none with {field}.*source_ratio'
    ):
        # Labels of another kind are none.
        losses_of(model, make_batch(classes=not classes))


def test_pairs_are_not_padded(teacher):
    student = segmentor(test_cfg=dict(size_divisor=48), size=None)
    model = build(teacher, student)
    with pytest.raises(ConfigError, match=r'\(1, 48, 96\).*\(1, 32, 64\)'):
        losses_of(model, make_batch())


def test_a_plain_batch_cannot_be_distilled(teacher):
    with pytest.raises(ConfigError, match='no named sides'):
        build(teacher)(torch.rand(2, 1, *SIZE), None, mode='loss')
