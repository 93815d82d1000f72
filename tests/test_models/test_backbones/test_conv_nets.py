import pytest
import torch
from mmpretrain.models import GlobalAveragePooling, LinearClsHead
from mmpretrain.registry import MODELS

from mmcmcd.errors import ConfigError
from mmcmcd.models import ClipConvNet, TemporalConvNet

NETS = {
    'series': (TemporalConvNet, dict(in_channels=6), (6, 32)),
    'clip': (ClipConvNet, dict(in_channels=1), (1, 12, 20, 28)),
}


@pytest.fixture(params=NETS, ids=NETS)
def net(request):
    torch.manual_seed(0)
    cls, kwargs, shape = NETS[request.param]
    return lambda **more: cls(**kwargs, **more), torch.randn(3, *shape)


@pytest.mark.parametrize(
    'channels,strides,shape',
    [((8, 16), None, (16, 1, 8)), ((8, 16), (1, 4), (16, 1, 8))],
)
def test_a_series_becomes_a_map_of_one_row(channels, strides, shape):
    net = TemporalConvNet(6, channels, strides=strides)
    (features,) = net(torch.randn(2, 6, 32))
    assert features.shape == (2, *shape)


def test_a_clip_becomes_a_map_of_time_by_place():
    net = ClipConvNet(1, (4, 8))
    (features,) = net(torch.randn(2, 1, 12, 20, 28))
    assert features.shape == (2, 8, 6, 5 * 7)


def test_dilation_sees_farther_and_keeps_the_length():
    """An impulse reaches as many samples as the kernels span."""
    for dilations, reach in (((1, 1), 4), ((1, 4), 10)):
        net = TemporalConvNet(
            1, (4, 4), 3, strides=(1, 1), dilations=dilations
        ).eval()
        for weight in net.parameters():
            torch.nn.init.constant_(weight, 0.1)  # nothing cancels out
        x = torch.zeros(1, 1, 65)
        base = net(x)[0]
        x[..., 32] = 1
        (features,) = net(x)
        assert features.shape[-1] == 65
        moved = (features != base).any(dim=1).flatten().nonzero().flatten()
        assert (moved.min(), moved.max()) == (32 - reach, 32 + reach)


def test_stock_necks_and_heads_take_the_features(net):
    make, x = net
    neck = GlobalAveragePooling()
    head = LinearClsHead(num_classes=5, in_channels=128)
    assert head(neck(make()(x))).shape == (3, 5)


def test_several_stages(net):
    make, x = net
    features = make(out_indices=(0, -1))(x)
    assert len(features) == 2
    torch.testing.assert_close(features[1].shape[1], 128)


def test_it_is_found_in_the_registry():
    for name in ('TemporalConvNet', 'ClipConvNet'):
        MODELS.build(dict(type=f'mmcmcd.{name}', in_channels=3))


def test_frozen_stages_stay_as_they_are(net):
    make, x = net
    model = make(frozen_stages=1)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(x)[0].sum().backward()
    optimizer.step()
    changed = {
        key
        for key, value in model.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert changed and not any(k.startswith('stages.0.') for k in changed)
    assert any(k.startswith('stages.1.') for k in changed)


@pytest.mark.parametrize(
    'kwargs,words',
    [
        (dict(strides=(2,)), 'one value a stage'),
        (dict(kernel_size=4), 'odd'),
        (dict(frozen_stages=9), 'frozen_stages=9'),
        (dict(out_indices=(5,)), r'out_indices=\(5,\)'),
        (dict(channels=()), 'channels is empty'),
    ],
)
def test_contradictions_are_refused(net, kwargs, words):
    with pytest.raises(ConfigError, match=words):
        net[0](**kwargs)


def test_another_shape_is_refused(net):
    make, x = net
    with pytest.raises(ConfigError, match='must be'):
        make()(x[:, :, None])
    with pytest.raises(ConfigError, match='in_channels'):
        make()(torch.cat([x, x], dim=1))
