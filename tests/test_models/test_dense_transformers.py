"""Dense distillation of and into transformers: locations are patch tokens."""

import copy
import importlib.util

import cv2
import numpy as np
import pytest
import torch
from conftest import REPO
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from mmpretrain.structures import DataSample

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import feature_map
from mmcmcd.registry import MODELS

CMC = dict(type='mmcmcd.CMCLoss', temperature=0.1)
DINOV2 = REPO / 'configs' / 'cmcd' / 'depth_nyu_dense_dinov2.py'


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')
    torch.manual_seed(0)


def vit(patch_size, in_channels=3, img_size=224, **kwargs):
    return dict(
        type='VisionTransformer',
        arch=dict(
            embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32
        ),
        img_size=img_size,
        patch_size=patch_size,
        in_channels=in_channels,
        out_type='featmap',
        **kwargs,
    )


def resnet(in_channels=3, **kwargs):
    return dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
        in_channels=in_channels,
        **kwargs,
    )


def swin(in_channels=3, **kwargs):
    return dict(
        type='SwinTransformer',
        arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
        img_size=64,
        window_size=4,
        pad_small_map=True,
        in_channels=in_channels,
        **kwargs,
    )


def timm(name, in_channels=3, **kwargs):
    return dict(
        type='TIMMBackbone',
        model_name=name,
        features_only=True,
        pretrained=False,
        in_channels=in_channels,
        **kwargs,
    )


def conv(in_channels, out_channels):
    return dict(
        type='Conv2d',
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=1,
    )


def distiller(folder, teacher, student, dense, **kwargs):
    path = folder / 'teacher.pth'
    state = MODELS.build(copy.deepcopy(teacher)).state_dict()
    state['mask_token'] = torch.zeros(1, 16)  # as in mmpretrain's DINOv2
    torch.save({f'backbone.{k}': v for k, v in state.items()}, path)
    init = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    model = MODELS.build(
        dict(
            type='mmcmcd.CrossModalDistiller',
            teacher=dict(teacher, init_cfg=init),
            student=student,
            dense=dense,
            data_preprocessor=dict(
                type='mmcmcd.PairedDataPreprocessor', source={}, target={}
            ),
            **kwargs,
        )
    )
    model.init_weights()
    return model


def batch(source, target, number=3):
    """Random pairs whose sides may be of different sizes."""
    return dict(
        inputs=dict(
            source=torch.randn(number, 3, *source),
            target=torch.randn(number, 1, *target),
        ),
        data_samples=[
            DataSample(metainfo=dict(pair_id=str(i), group_index=i))
            for i in range(number)
        ],
    )


# teacher, its stage and width, student, its stage and width, sizes of the
# sides, grid, cells of an image
TEACHER_VIT_14 = (vit(14), 0, 16)
TEACHER_VIT_16 = (vit(16), 0, 16)
CASES = {
    'vit14-resnet': (
        *TEACHER_VIT_14, resnet(1), 0, 64, (56, 84), (64, 96), 'student', 6,
    ),
    'vit14-resnet-teacher_grid': (
        *TEACHER_VIT_14, resnet(1), 0, 64, (56, 84), (64, 96), 'teacher', 24,
    ),
    'vit16-vit16': (
        *TEACHER_VIT_16, vit(16, 1), 0, 16, (64, 96), (64, 96), None, 24,
    ),
    'vit14-vit16': (
        *TEACHER_VIT_14, vit(16, 1), 0, 16, (56, 84), (64, 96), None, 24,
    ),
    'vit14-vit16-other_size': (
        *TEACHER_VIT_14, vit(16, 1), 0, 16, (42, 70), (64, 96), (3, 5), 15,
    ),
    'resnet-swin_last': (
        resnet(), 0, 64, swin(1), 0, 64, (64, 96), (64, 96), None, 6,
    ),
    'resnet-swin_third': (
        resnet(out_indices=(2,)), 0, 32, swin(1, out_indices=(1, 2)), 1, 32,
        (64, 96), (64, 96), None, 24,
    ),
    'swin-resnet': (
        swin(out_indices=(1, 3)), 0, 16, resnet(1), 0, 64,
        (64, 64), (96, 96), 'teacher', 64,
    ),
    'vit_middle-swin': (
        vit(16, out_indices=[0, 1]), 0, 16, swin(1), 0, 64,
        (64, 96), (64, 96), 'student', 6,
    ),
    'vit16-timm': (
        *TEACHER_VIT_16, timm('resnet10t', 1), -1, 512, (64, 96), (64, 96),
        'teacher', 24,
    ),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES)
def test_locations_are_compared_on_one_grid(case, tmp_path):
    teacher, teacher_stage, teacher_dim, student, stage, dim, *rest = CASES[
        case
    ]
    source, target, grid, num_cells = rest
    if 'timm' in case and importlib.util.find_spec('timm') is None:
        pytest.skip('timm is not installed')
    model = distiller(
        tmp_path,
        teacher,
        student,
        dict(
            cells=dict(
                loss=CMC,
                stage=stage,
                teacher_stage=teacher_stage,
                projector=conv(dim, teacher_dim),
                source_norm=dict(
                    type='mmcmcd.Center', num_features=teacher_dim
                ),
                grid=grid,
            )
        ),
    )
    seen = []
    model.dense['cells'].loss.register_forward_pre_hook(
        lambda _, rows: seen.append([side.shape for side in rows])
    )
    loss = model.loss(**batch(source, target))['loss_cells']
    assert seen == [[(3 * num_cells, teacher_dim)] * 2]
    loss.backward()
    gradients = [
        p.grad for p in model.student.parameters() if p.grad is not None
    ]
    assert all(g.isfinite().all() for g in gradients)
    assert any(g.any() for g in gradients)


def test_global_and_dense_terms_share_a_vit(tmp_path):
    """Its embedding is the mean of the tokens that are the locations."""
    model = distiller(
        tmp_path,
        vit(14),
        vit(16, 1),
        dict(cells=dict(loss=CMC)),
        losses=dict(cmc=CMC),
    ).eval()
    data = batch((56, 84), (64, 96))
    assert set(model.loss(**data)) == {'loss_cmc', 'loss_cells'}
    source = data['inputs']['source']
    (tokens,) = model.teacher.module['teacher'](source)
    torch.testing.assert_close(
        model.embed_source(source), tokens.mean(dim=(2, 3))
    )


def test_students_from_stock_vits_export_their_weights(tmp_path):
    """What is distilled is the stock network, position embedding and all."""
    student = vit(16, 1, img_size=(64, 96))
    model = distiller(
        tmp_path, vit(14), student, dict(cells=dict(loss=CMC, grid='student'))
    )
    stock = MODELS.build(student)
    stock.load_state_dict(model.student.state_dict(), strict=True)


@pytest.mark.parametrize(('size', 'patch'), [((56, 84), 14), ((64, 96), 16)])
def test_a_cell_is_its_patch(size, patch):
    """Where no token looks at another, a patch changes its own cell."""
    net = MODELS.build(vit(patch))
    net.init_weights()
    for layer in net.layers:
        torch.nn.init.zeros_(layer.attn.proj.weight)
    images = torch.randn(1, 3, *size)
    others = images.clone()
    others[..., 2 * patch : 3 * patch, 4 * patch : 5 * patch] += 1
    before, after = (
        feature_map(net(each), -1, 'teacher') for each in (images, others)
    )
    changed = (before != after).any(dim=1)[0]
    assert changed.shape == (4, 6)
    assert changed.nonzero().tolist() == [[2, 4]]


def test_without_a_rule_different_strides_are_told(tmp_path):
    model = distiller(
        tmp_path,
        vit(16),
        resnet(1),
        dict(cells=dict(loss=CMC, projector=conv(64, 16))),
    )
    with pytest.raises(ConfigError, match="2x3 cells.*4x6.*grid='student'"):
        model.loss(**batch((64, 96), (64, 96)))


def test_tokens_that_are_no_map_are_told(tmp_path):
    cfg = dict(vit(16), out_type='raw')
    model = distiller(tmp_path, cfg, vit(16, 1), dict(cells=dict(loss=CMC)))
    with pytest.raises(ConfigError, match="model.teacher.out_type='featmap'"):
        model.loss(**batch((64, 96), (64, 96)))


def test_config_with_a_dinov2_teacher(tmp_path):
    """The teacher sees whole patches of the student's view."""
    for folder in ('rgb', 'depth', 'splits'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'splits/train.txt').write_text('0000\n0001\n')
    rng = np.random.default_rng(0)
    for index in range(2):
        rgb = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        depth = rng.integers(500, 9000, (60, 80), dtype=np.uint16)
        cv2.imwrite(str(tmp_path / f'rgb/{index:04d}.jpg'), rgb)
        cv2.imwrite(str(tmp_path / f'depth/{index:04d}.png'), depth)
    cfg = Config.fromfile(DINOV2)
    teacher = cfg.model.teacher
    assert cfg.model.dense.dense_32.grid == 'student'
    cfg.train_dataloader.dataset.data_root = str(tmp_path)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    data = pseudo_collate([dataset[0], dataset[1]])
    source, target = (data['inputs'][name] for name in ('source', 'target'))
    assert source[0].shape == (3, 210, 280)
    assert target[0].shape == (1, 240, 320)
    # The networks of the config, narrow and shallow.
    arch = dict(
        embed_dims=384, num_layers=1, num_heads=2, feedforward_channels=16
    )
    teacher = {k: v for k, v in teacher.items() if k != 'init_cfg'}
    model_cfg = cfg.model
    model_cfg.student.update(depth=18, base_channels=8, stem_channels=8)
    model_cfg.student_projector.in_channels = 64
    model_cfg.dense.dense_32.projector.in_channels = 64
    model_cfg.dense.dense_16.projector.in_channels = 32
    model = distiller(
        tmp_path,
        dict(teacher, arch=arch, img_size=70),
        model_cfg.student,
        model_cfg.dense,
        losses=model_cfg.losses,
        source_norm=model_cfg.source_norm,
        student_projector=model_cfg.student_projector,
    )
    losses = model.loss(**model.data_preprocessor(data, True))
    names = {'loss_cmd', 'loss_cmc', 'loss_dense_32', 'loss_dense_16'}
    assert set(losses) == names
    assert all(value.isfinite() for value in losses.values())
