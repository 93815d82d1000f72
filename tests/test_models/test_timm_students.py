"""timm's networks through mmpretrain's own wrapper, on spectrograms."""

import pytest
import torch
from mmpretrain.structures import DataSample

from mmcmcd.models.utils import export_student
from mmcmcd.registry import MODELS

pytest.importorskip('timm')
TIMM = dict(type='mmpretrain.TIMMBackbone', pretrained=False, in_channels=1)


@pytest.mark.parametrize(
    'name,width', [('resnet10t', 512), ('mobilenetv3_small_050', 1024)]
)
def test_a_timm_network_is_a_student(name, width, tmp_path):
    torch.manual_seed(0)
    teacher = dict(
        type='mmcmcd.TemporalConvNet', in_channels=3, channels=(16, 32)
    )
    state = MODELS.build(teacher).state_dict()
    path = str(tmp_path / 'teacher.pth')
    torch.save({f'backbone.{k}': v for k, v in state.items()}, path)
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    student = dict(TIMM, model_name=name)
    model = MODELS.build(
        dict(
            type='mmcmcd.CrossModalDistiller',
            teacher=dict(teacher, init_cfg=init_cfg),
            student=student,
            student_projector=dict(
                type='mmpretrain.LinearNeck',
                in_channels=width,
                out_channels=32,
                gap_dim=2,
            ),
            losses=dict(cmc=dict(type='mmcmcd.CMCLoss')),
        )
    )
    model.init_weights()
    inputs = dict(
        source=torch.randn(4, 3, 32), target=torch.randn(4, 1, 64, 80)
    )
    samples = [DataSample(metainfo=dict(group_index=i)) for i in range(4)]
    loss = model(inputs, samples, mode='loss')['loss_cmc']
    loss.backward()
    assert all(p.grad is not None for p in model.student.parameters())

    exported = torch.load(export_student(model, tmp_path / 'student.pth'))
    stock = MODELS.build(student)
    stock.load_state_dict(
        {
            key.removeprefix('backbone.'): value
            for key, value in exported['state_dict'].items()
        },
        strict=True,
    )
