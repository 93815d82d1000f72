import pytest
import torch
from mmpretrain.registry import MODELS

from mmcmcd.models import ArraySimCLR  # noqa: F401

PARTS = dict(
    neck=dict(
        type='NonLinearNeck',
        in_channels=64,
        hid_channels=16,
        out_channels=8,
        num_layers=2,
        with_avg_pool=True,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(
        type='ContrastiveHead',
        loss=dict(type='CrossEntropyLoss'),
        temperature=0.2,
    ),
)
IMAGES = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)


def build(name, backbone):
    torch.manual_seed(0)
    return MODELS.build(dict(type=name, backbone=backbone, **PARTS))


def test_on_images_it_equals_the_stock_one():
    stock = build('mmpretrain.SimCLR', IMAGES).double()
    ours = build('mmcmcd.ArraySimCLR', IMAGES).double()
    ours.load_state_dict(stock.state_dict(), strict=True)
    views = [torch.randn(5, 3, 32, 32, dtype=torch.float64) for _ in range(2)]
    results = []
    for model in (stock, ours):
        model.train()
        loss = model.loss(views, [])['loss']
        loss.backward()
        grads = [p.grad.clone() for p in model.parameters()]
        results.append((loss, grads))
    (loss, grads), (our_loss, our_grads) = results
    torch.testing.assert_close(our_loss, loss, rtol=0, atol=1e-8)
    for ours, expected in zip(our_grads, grads, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    'backbone,shape',
    [
        (
            dict(
                type='mmcmcd.TemporalConvNet', in_channels=6, channels=[8, 64]
            ),
            (6, 32),
        ),
        (dict(type='mmcmcd.ClipConvNet', channels=[4, 64]), (1, 8, 12, 16)),
    ],
    ids=['series', 'clip'],
)
def test_series_and_clips_are_learnt(backbone, shape):
    """Two views that share a pattern come closer than those of others."""
    model = build('mmcmcd.ArraySimCLR', backbone)
    pattern = torch.randn(8, *shape)
    views = [pattern + 0.1 * torch.randn_like(pattern) for _ in range(2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    losses = []
    for _ in range(15):
        loss = model.loss(views, [])['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
