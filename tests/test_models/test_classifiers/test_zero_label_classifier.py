import copy
import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import (
    get_state_dict,
    load_checkpoint,
    save_checkpoint,
    weights_to_cpu,
)
from mmpretrain.structures import DataSample

from mmcmcd.errors import CheckpointError, ConfigError
from mmcmcd.registry import MODELS

NUM_CLASSES = 5
WIDTH = 64


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')


def resnet(in_channels=3, **kwargs):
    return dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
        in_channels=in_channels,
        **kwargs,
    )


@pytest.fixture
def files(tmp_path):
    """A teacher, and a classifier whose backbone it is."""
    torch.manual_seed(0)
    teacher = MODELS.build(resnet())
    state = {f'backbone.{k}': v for k, v in teacher.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'teacher.pth')
    head = torch.nn.Linear(WIDTH, NUM_CLASSES)
    state.update({f'head.fc.{k}': v for k, v in head.state_dict().items()})
    torch.save(dict(state_dict=state), tmp_path / 'head.pth')
    return str(tmp_path / 'teacher.pth'), str(tmp_path / 'head.pth')


def build(files, losses=None, head_file=None, **kwargs):
    teacher, head = files
    cfg = dict(
        type='mmcmcd.ZeroLabelClassifier',
        teacher=resnet(
            init_cfg=dict(
                type='Pretrained', checkpoint=teacher, prefix='backbone.'
            )
        ),
        teacher_head=dict(
            type='LinearClsHead',
            num_classes=NUM_CLASSES,
            in_channels=WIDTH,
            init_cfg=dict(
                type='Pretrained',
                checkpoint=head_file or head,
                prefix='head.',
            ),
        ),
        source_norm=dict(type='BN1d', num_features=WIDTH, affine=False),
        student=resnet(1),
        losses=dict(loss=losses or dict(type='mmcmcd.CMCLoss')),
    )
    torch.manual_seed(1)
    cfg.update(kwargs)
    return MODELS.build(ConfigDict(copy.deepcopy(cfg))).eval()


def batch(num=6):
    torch.manual_seed(2)
    inputs = dict(
        source=torch.randn(num, 3, 32, 32), target=torch.randn(num, 1, 32, 32)
    )
    return inputs, [DataSample() for _ in range(num)]


def test_perfect_student_classifies_like_the_teacher(files):
    """The teacher's own rows come back as its features; only that is undone
    which the normalisation did, and the length that cosines do not see."""
    model = build(files)
    norm = model.source_norm
    torch.nn.init.normal_(norm.running_mean)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    features = torch.randn(7, WIDTH)
    rows = norm(features)
    rows = math.sqrt(WIDTH) * rows / rows.norm(dim=1, keepdim=True)
    expected = rows * (norm.running_var + norm.eps).sqrt() + norm.running_mean
    # Whatever the length of the student's embedding.
    found = model.to_teacher_features(0.01 * rows)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(norm(found), rows, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_predicts_with_the_loaded_head_and_keeps_the_embeddings(files):
    model = build(files)
    inputs, samples = batch()
    found = model(inputs, samples, mode='predict')
    weights = torch.load(files[1])['state_dict']
    rows = model.embed_target(inputs['target'])
    logits = torch.nn.functional.linear(
        model.to_teacher_features(rows),
        weights['head.fc.weight'],
        weights['head.fc.bias'],
    )
    scores = torch.stack([s.pred_score for s in found])
    torch.testing.assert_close(scores, logits.softmax(dim=1))
    assert found[0].target_embedding.shape == (WIDTH,)
    assert found[0].source_embedding.shape == (WIDTH,)
    # The tested checkpoint is a distiller's: neither teacher nor head in it.
    assert not any('head' in key for key in model.state_dict())


@pytest.mark.parametrize('sign, accuracy', [(1, 100), (-1, 0)])
@torch.no_grad()
def test_perfect_student_is_always_right(files, sign, accuracy):
    """It sees what the teacher sees, and a head separates the classes."""
    torch.manual_seed(3)
    labels = torch.arange(NUM_CLASSES).repeat(4)
    images = 2 * torch.randn(NUM_CLASSES, 3, 32, 32)[labels]
    images += 0.1 * torch.randn_like(images)
    model = build(files, student=resnet())
    weights = torch.load(files[1])['state_dict']
    model.student.load_state_dict(
        {
            key.removeprefix('backbone.'): value
            for key, value in weights.items()
            if key.startswith('backbone.')
        }
    )
    # Far from the identity, so that it has to be undone.
    features = model.teacher(images)
    norm = model.source_norm
    norm.running_mean.copy_(features.mean(dim=0))
    norm.running_var.copy_(features.var(dim=0))
    # The student's space is that of the normalised features.
    extract = model._extract_target

    def turned(images):
        found = extract(images)
        return found._replace(rows=sign * norm(found.rows))

    model._extract_target = turned
    # The nearest class mean, as a linear head.
    means = torch.stack(
        [features[labels == i].mean(dim=0) for i in range(NUM_CLASSES)]
    )
    weights['head.fc.weight'] = means
    weights['head.fc.bias'] = -means.square().sum(dim=1) / 2
    torch.save(dict(state_dict=weights), files[1])
    _, samples = batch(len(labels))
    found = model(dict(source=images, target=images), samples, mode='predict')
    right = [
        int(s.pred_label) == label
        for s, label in zip(found, labels.tolist(), strict=True)
    ]
    assert 100 * sum(right) / len(right) == accuracy


@pytest.mark.parametrize(
    'losses',
    [
        dict(type='mmcmcd.CMDLoss', form='within'),
        dict(type='mmcmcd.CMCDLoss', cmd=dict(form='within')),
        dict(type='mmcmcd.CMCLoss', loss_weight=0.0),
        dict(
            type='mmcmcd.CMCDLoss',
            cmd=dict(form='within'),
            cmc=dict(loss_weight=0),
        ),
    ],
    ids=['within', 'within-composed', 'weightless', 'weightless-composed'],
)
def test_losses_that_leave_the_rotation_open_are_refused(files, losses):
    with pytest.raises(ConfigError, match='blind to any rotation'):
        build(files, losses)


@pytest.mark.parametrize(
    'losses',
    [
        dict(type='mmcmcd.CMDLoss', form='cross'),
        dict(type='mmcmcd.CMCDLoss', cmd=dict(form='cross')),
        dict(type='mmcmcd.CMCDLoss', cmd=dict(form='within'), cmc=dict()),
    ],
)
def test_losses_that_place_the_student_are_taken(files, losses):
    assert build(files, losses).teacher_head.num_classes == NUM_CLASSES


def test_projected_teacher_is_refused(files):
    projector = dict(type='GlobalAveragePooling')
    with pytest.raises(ConfigError, match='without teacher_projector'):
        build(files, teacher_projector=projector)


def test_length_of_features_must_be_known(files):
    with pytest.raises(ConfigError, match='feature_norm'):
        build(files, source_norm=None)
    model = build(files, source_norm=None, feature_norm=3.0)
    rows = model.to_teacher_features(torch.randn(4, WIDTH))
    torch.testing.assert_close(rows.norm(dim=1), torch.full((4,), 3.0))
    layer_norm = dict(
        type='LN', normalized_shape=WIDTH, elementwise_affine=False
    )
    with pytest.raises(ConfigError, match='undo'):
        build(files, source_norm=layer_norm)


def test_head_of_another_backbone_is_refused(files, tmp_path):
    state = torch.load(files[1])
    state['state_dict']['backbone.conv1.weight'] += 0.1
    other = str(tmp_path / 'fine_tuned.pth')
    torch.save(state, other)
    model = build(files, head_file=other)
    with pytest.raises(CheckpointError, match=r'another backbone.*conv1'):
        model(*batch(), mode='predict')


def test_head_without_weights_is_refused(files):
    head = dict(
        type='LinearClsHead', num_classes=NUM_CLASSES, in_channels=WIDTH
    )
    with pytest.raises(ConfigError, match='teacher_head has no weights'):
        build(files, teacher_head=head)
    model = build(files, head_file='/no/such/head.pth')
    with pytest.raises(CheckpointError, match='/no/such/head.pth'):
        model(*batch(), mode='predict')


def test_checkpoint_of_other_losses_is_refused(files, tmp_path):
    """What counts is the training, not what the config of the test says."""
    placed, turned = tmp_path / 'cmc.pth', tmp_path / 'within.pth'
    for path, loss in (
        (placed, dict(type='mmcmcd.CMCLoss')),
        (turned, dict(type='mmcmcd.CMDLoss', form='within')),
    ):
        model = MODELS.build(
            dict(
                type='mmcmcd.CrossModalDistiller',
                teacher=resnet(
                    init_cfg=dict(
                        type='Pretrained',
                        checkpoint=files[0],
                        prefix='backbone.',
                    )
                ),
                source_norm=dict(
                    type='BN1d', num_features=WIDTH, affine=False
                ),
                student=resnet(1),
                losses=dict(loss=loss),
            )
        )
        save_checkpoint(
            dict(state_dict=weights_to_cpu(get_state_dict(model))), str(path)
        )
    load_checkpoint(build(files), str(placed), strict=True)
    with pytest.raises(ConfigError, match='this checkpoint was trained by'):
        load_checkpoint(build(files), str(turned))


@pytest.mark.parametrize(
    ('known', 'message'),
    [
        (('b', 'a'), r"label 0 is \['b'\] there, \['a'\] here"),
        (('a',), r'knows 1 classes, the test set has 2.*label 1 is \[\]'),
    ],
)
def test_head_of_other_classes_is_refused(files, tmp_path, known, message):
    content = torch.load(files[1])
    head = str(tmp_path / 'named.pth')
    content['meta'] = dict(dataset_meta=dict(classes=known))
    torch.save(content, head)
    model = build(files, head_file=head)
    model.require_classes(known)
    with pytest.raises(CheckpointError, match=message):
        model.require_classes(('a', 'b'))
    # A file that does not name its classes cannot be compared.
    build(files).require_classes(('a', 'b'))
