"""What differs on a GPU: moves of the teacher, mixed precision, losses."""

import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from mmcmcd.models.losses import CMCLoss, CMDLoss
from mmcmcd.registry import MODELS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA'),
]


@pytest.mark.parametrize(
    'loss', [CMDLoss('within'), CMDLoss('cross'), CMCLoss()]
)
def test_losses_equal_the_cpu(loss):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 256, 128)
    values, grads = [], []
    for device in ('cpu', 'cuda'):
        rows = student.to(device).requires_grad_()
        value = loss(rows, teacher.to(device))
        values.append(value.detach().cpu())
        grads.append(torch.autograd.grad(value, rows)[0].cpu())
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_mixed_precision_training_learns_and_spares_the_teacher(
    tmp_path, dtype
):
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    net = dict(type='ResNet', depth=18)
    path = str(tmp_path / 'teacher.pth')
    torch.save(
        {
            f'backbone.{k}': v
            for k, v in MODELS.build(net).state_dict().items()
        },
        path,
    )
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    model = MODELS.build(
        dict(
            type='mmcmcd.CrossModalDistiller',
            teacher=dict(net, init_cfg=init_cfg),
            student=dict(net, in_channels=1),
            losses=dict(
                cmcd=dict(type='mmcmcd.CMCDLoss', cmd=dict(), cmc=dict())
            ),
            data_preprocessor=dict(
                type='mmcmcd.PairedDataPreprocessor',
                source=dict(mean=[0.5] * 3, std=[0.25] * 3),
                target=dict(mean=[0.5], std=[0.25]),
            ),
        )
    )
    model.init_weights()
    model = model.cuda().train()
    before = model.teacher.state_hash()
    optim_wrapper = AmpOptimWrapper(
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3), dtype=dtype
    )
    source = torch.rand(32, 3, 96, 128)
    batch = dict(
        inputs=dict(source=source, target=source.mean(1, keepdim=True)),
        data_samples=[
            DataSample(metainfo=dict(group_index=i)) for i in range(32)
        ],
    )
    losses = [
        float(model.train_step(batch, optim_wrapper)['loss'])
        for _ in range(20)
    ]
    assert all(torch.tensor(losses).isfinite())
    assert losses[-1] < losses[0] - 0.5
    assert model.teacher.state_hash() == before
    device = next(model.teacher.module.parameters()).device
    assert device.type == 'cuda'
