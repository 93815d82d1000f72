import copy
import os

import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

from mmcmcd.errors import CheckpointError
from mmcmcd.models.utils import export_student, file_sha256
from mmcmcd.registry import MODELS
from mmcmcd.version import __version__

BACKBONE = dict(
    type='mmpretrain.ResNet',
    depth=18,
    stem_channels=8,
    base_channels=8,
    in_channels=1,
    out_indices=(0, 1, 2, 3),
)


@pytest.fixture(scope='module')
def distiller():
    torch.manual_seed(0)
    init_default_scope('mmpretrain')
    model = MODELS.build(
        dict(
            type='mmcmcd.CrossModalDistiller',
            teacher=dict(
                BACKBONE,
                init_cfg=dict(type='Pretrained', checkpoint='unused.pth'),
            ),
            student=BACKBONE,
            student_projector=dict(
                type='mmpretrain.LinearNeck', in_channels=64, out_channels=8
            ),
            losses=dict(cmd=dict(type='mmcmcd.CMDLoss')),
        )
    )
    # Statistics that differ from a new network's.
    model.student.train()
    model.student(torch.randn(4, 1, 32, 32))
    model.student.eval()
    return model


def features(backbone):
    torch.manual_seed(1)
    backbone.eval()
    with torch.no_grad():
        return backbone(torch.randn(2, 1, 64, 64))


def assert_same_features(backbone, distiller):
    for ours, theirs in zip(
        features(backbone), features(distiller.student), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_name_and_content(distiller, tmp_path):
    path = export_student(distiller, str(tmp_path / 'depth.pth'))
    assert path == str(tmp_path / f'depth-{file_sha256(path)[:8]}.pth')
    assert os.listdir(tmp_path) == [os.path.basename(path)]
    content = torch.load(path, weights_only=True)
    assert content['meta']['mmcmcd_version'] == __version__
    expected = {f'backbone.{k}' for k in distiller.student.state_dict()}
    assert set(content['state_dict']) == expected


def test_hash_depends_on_content_alone(distiller, tmp_path):
    a = export_student(distiller, tmp_path / 'a.pth')
    b = export_student(distiller, tmp_path / 'b-00000000.pth')
    assert a[-12:] == b[-12:]
    assert os.path.basename(b) == f'b-{file_sha256(b)[:8]}.pth'
    other = copy.deepcopy(distiller)
    other.student.conv1.weight.data[0, 0, 0, 0] += 1
    assert export_student(other, tmp_path / 'a.pth') != a


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_from_a_training_checkpoint(distiller, tmp_path, prefix):
    state = {prefix + k: v for k, v in distiller.state_dict().items()}
    meta = dict(epoch=7, student=dict(type='ResNet'), cfg='import os')
    source = tmp_path / 'epoch_7.pth'
    torch.save(dict(state_dict=state, meta=meta, optimizer={}), source)
    path = export_student(str(source), tmp_path / 'out' / 'student.pth')
    content = torch.load(path, weights_only=True)
    assert content['meta'] == dict(
        epoch=7, student=dict(type='ResNet'), mmcmcd_version=__version__
    )
    for key, value in distiller.student.state_dict().items():
        assert torch.equal(content['state_dict'][f'backbone.{key}'], value)


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('backbone.conv1.weight', 'exported student .* already'),
        ('decode_head.conv.weight', r'begin with decode_head\.'),
        ('student_projector.fc.weight', r'begin with student_projector\.'),
    ],
)
def test_refuses_files_without_student(tmp_path, key, message):
    source = tmp_path / 'x.pth'
    torch.save(dict(state_dict={key: torch.zeros(1)}), source)
    with pytest.raises(CheckpointError, match=message):
        export_student(str(source), tmp_path / 'y.pth')
    assert os.listdir(tmp_path) == ['x.pth']


def test_failed_write_leaves_nothing(distiller, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        export_student(distiller, tmp_path / 'x.pth')
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmseg'])
def test_backbones_of_both_libraries_load_it_strictly(
    distiller, tmp_path, scope
):
    path = export_student(distiller, tmp_path / 'x.pth')
    backbone = MODELS.build(dict(BACKBONE, type=f'{scope}.ResNet'))
    state = torch.load(path, weights_only=True)['state_dict']
    state = {key.removeprefix('backbone.'): v for key, v in state.items()}
    backbone.load_state_dict(state, strict=True)
    assert_same_features(backbone, distiller)


def pretrained(path):
    return dict(type='Pretrained', checkpoint=path, prefix='backbone.')


def test_stock_classifier(distiller, tmp_path):
    path = export_student(distiller, tmp_path / 'x.pth')
    model = MMPRETRAIN_MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(BACKBONE, init_cfg=pretrained(path)),
        )
    )
    model.init_weights()
    assert_same_features(model.backbone, distiller)


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmseg'])
def test_stock_segmentor(distiller, tmp_path, scope):
    from mmseg.registry import MODELS as MMSEG_MODELS

    path = export_student(distiller, tmp_path / 'x.pth')
    model = MMSEG_MODELS.build(
        dict(
            type='mmseg.EncoderDecoder',
            backbone=dict(
                BACKBONE,
                type=f'{scope}.ResNet',
                init_cfg=pretrained(path),
            ),
            decode_head=dict(
                type='mmseg.FCNHead',
                in_channels=64,
                in_index=3,
                channels=8,
                num_convs=1,
                num_classes=3,
            ),
        )
    )
    model.init_weights()
    assert_same_features(model.backbone, distiller)
