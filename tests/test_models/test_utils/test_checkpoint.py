import copy

import pytest
import torch
from mmengine.model import PretrainedInit
from mmpretrain.models import ResNet, ResNetV1c, VisionTransformer
from torch import nn

from mmcmcd.errors import CheckpointError, ConfigError
from mmcmcd.models.utils import (
    adapt_input_channels,
    compare_state,
    file_sha256,
    load_backbone_strict,
    state_hash,
)

SMALL = dict(stem_channels=8, base_channels=8)


def resnet(depth=18, **kwargs):
    return ResNet(depth, **SMALL, **kwargs)


def save(path, state, prefix='', nested='state_dict'):
    state = {prefix + key: value for key, value in state.items()}
    torch.save({nested: state} if nested else state, path)
    return str(path)


@pytest.fixture(scope='module')
def source():
    torch.manual_seed(0)
    return resnet()


@pytest.mark.parametrize('nested', ['state_dict', 'model', None])
@pytest.mark.parametrize(
    ('stored', 'asked'),
    [
        ('', ''),
        ('backbone.', 'backbone.'),
        ('backbone.', 'backbone'),
        ('module.backbone.', 'backbone.'),
        ('student.net.', 'student.net.'),
    ],
)
def test_every_tensor_is_loaded(source, tmp_path, nested, stored, asked):
    path = save(tmp_path / 'x.pth', source.state_dict(), stored, nested)
    net = resnet()
    assert state_hash(net) != state_hash(source)
    load_backbone_strict(net, path, prefix=asked)
    assert state_hash(net) == state_hash(source)


def test_heads_are_ignored_without_prefix_only(source, tmp_path):
    state = source.state_dict()
    head = {'fc.weight': torch.zeros(3, 64), 'fc.bias': torch.zeros(3)}
    net = resnet()
    load_backbone_strict(net, save(tmp_path / 'a.pth', {**state, **head}))
    assert state_hash(net) == state_hash(source)
    path = save(tmp_path / 'b.pth', {**state, **head}, 'backbone.')
    with pytest.raises(CheckpointError, match=r'2 in the file unknown.*fc\.'):
        load_backbone_strict(net, path, prefix='backbone.')


def test_batch_counters_may_be_missing(source, tmp_path):
    state = {
        key: value
        for key, value in source.state_dict().items()
        if 'num_batches_tracked' not in key
    }
    net = resnet()
    load_backbone_strict(net, save(tmp_path / 'x.pth', state))
    assert torch.equal(net.conv1.weight, source.conv1.weight)


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmcmcd.models.utils.checkpoint.print_log',
        lambda text, **_: lines.append(text),
    )
    return lines


def test_log_names_role_file_hash_and_count(source, tmp_path, logged):
    path = save(tmp_path / 'x.pth', source.state_dict())
    load_backbone_strict(resnet(), path, role='guide')
    count = len(source.state_dict())
    assert logged == [
        f'guide: {count} of {count} tensors from {path} (sha256 '
        f'{file_sha256(path)}). 0 of its {count} keys were left out.'
    ]


@pytest.mark.parametrize('asked', ['backbone', 'backbone.'])
def test_log_names_what_was_left_out(source, tmp_path, logged, asked):
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    heads = [f'head.fc{i}.weight' for i in range(4)]
    whole = {**dict.fromkeys(heads, torch.zeros(1)), **state}
    # Integers may be missing in a file.
    del whole['backbone.bn1.num_batches_tracked']
    path = save(tmp_path / 'x.pth', whole)
    load_backbone_strict(resnet(), path, asked)
    count = len(state)
    assert logged == [
        f'teacher: {count - 1} of {count} tensors from {path} under prefix '
        f"'backbone.' (sha256 {file_sha256(path)}). 4 of its {count + 3} keys "
        f'were left out ({", ".join(heads[:3])}, ...).'
    ]


def test_log_has_a_hash_of_what_is_no_file(source, logged, monkeypatch):
    monkeypatch.setattr(
        'mmcmcd.models.utils.checkpoint.CheckpointLoader.load_checkpoint',
        lambda *_, **__: source.state_dict(),
    )
    load_backbone_strict(resnet(), 'torchvision://small')
    (line,) = logged
    assert 'from torchvision://small (sha256 of the loaded weights' in line
    assert state_hash(source) in line


def test_missing_file_says_where_teachers_come_from():
    with pytest.raises(CheckpointError) as caught:
        load_backbone_strict(resnet(), 'none.pth')
    for part in (
        "teacher checkpoint 'none.pth' does not exist",
        'configs/pretrain',
        'mmpretrain model zoo',
        'torchvision://resnet50',
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize('content', [b'', b'hello', b'PK\x03\x04 cut'])
def test_unreadable_file(tmp_path, content):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'x\.pth.* cannot be read'):
        load_backbone_strict(resnet(), str(path))


def test_file_without_weights(tmp_path):
    path = str(tmp_path / 'x.pth')
    torch.save(dict(meta=dict(epoch=1)), path)
    with pytest.raises(CheckpointError, match=r"no weights.*\['meta'\]"):
        load_backbone_strict(resnet(), path)


@pytest.mark.parametrize('asked', ['', 'student.'])
def test_wrong_prefix_names_the_right_one(source, tmp_path, asked):
    path = save(tmp_path / 'x.pth', source.state_dict(), 'backbone.')
    with pytest.raises(CheckpointError, match=r"set prefix='backbone\.'"):
        load_backbone_strict(resnet(), path, prefix=asked)


def test_superfluous_prefix(source, tmp_path):
    path = save(tmp_path / 'x.pth', source.state_dict())
    with pytest.raises(CheckpointError, match='begin with bn1., conv1., lay'):
        load_backbone_strict(resnet(), path, prefix='backbone.')


def test_partial_file_changes_nothing(source, tmp_path):
    state = {
        key: value
        for key, value in source.state_dict().items()
        if not key.startswith('layer4.')
    }
    net = resnet()
    before = state_hash(net)
    with pytest.raises(
        CheckpointError, match=r'missing in the file \(layer4\.0.*is partial'
    ):
        load_backbone_strict(net, save(tmp_path / 'x.pth', state))
    assert state_hash(net) == before


@pytest.mark.parametrize(
    ('net', 'message'),
    [
        (resnet(34), 'missing in the file .*shallower network'),
        (resnet(50), 'of another shape .*file .8, 8, 3, 3., network .8, 8, 1'),
        (ResNetV1c(depth=18, **SMALL), 'The network has a deep stem'),
        (resnet(in_channels=1), 'file takes 3 input channels, the network 1'),
    ],
)
def test_other_architecture(source, tmp_path, net, message):
    path = save(tmp_path / 'x.pth', source.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_backbone_strict(net, path)


def test_deeper_file_is_refused(source, tmp_path):
    path = save(tmp_path / 'x.pth', resnet(34).state_dict())
    with pytest.raises(CheckpointError, match='unknown to the network'):
        load_backbone_strict(source, path)


def test_deep_stem_into_plain_network(source, tmp_path):
    state = ResNetV1c(depth=18, **SMALL).state_dict()
    path = save(tmp_path / 'x.pth', state)
    with pytest.raises(CheckpointError, match='The file has a deep stem'):
        load_backbone_strict(source, path)


def test_position_embedding_is_resized_by_the_network(tmp_path):
    def vit(size):
        arch = dict(
            embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16
        )
        return VisionTransformer(arch, img_size=size, patch_size=16)

    path = save(tmp_path / 'x.pth', vit(64).state_dict())
    load_backbone_strict(vit(128), path)


@pytest.mark.parametrize('mode', ['sum', 'mean'])
@pytest.mark.parametrize('channels', [1, 2, 4])
@pytest.mark.parametrize('loader', ['torch', 'mmengine', 'ours'])
def test_adapted_stem(source, tmp_path, mode, channels, loader):
    path = save(tmp_path / 'x.pth', source.state_dict())
    net = resnet(in_channels=channels)
    adapt_input_channels(net, mode)
    net = copy.deepcopy(net)
    if loader == 'torch':
        net.load_state_dict(source.state_dict())
    elif loader == 'mmengine':
        PretrainedInit(path)(net)
    else:
        load_backbone_strict(net, path)
    kernel = source.conv1.weight
    expected = (kernel[:, 0] + kernel[:, 1] + kernel[:, 2]) / channels
    if mode == 'mean':
        expected = expected / 3
    for channel in range(channels):
        torch.testing.assert_close(net.conv1.weight[:, channel], expected)
    for name, value in source.state_dict().items():
        if name != 'conv1.weight':
            assert torch.equal(net.state_dict()[name], value), name


def test_sum_keeps_the_response_to_a_grey_image(source):
    grey = torch.rand(2, 1, 32, 32)
    for channels in (1, 2):
        net = resnet(in_channels=channels)
        adapt_input_channels(net, 'sum')
        net.load_state_dict(source.state_dict())
        torch.testing.assert_close(
            net.conv1(grey.expand(-1, channels, -1, -1)),
            source.conv1(grey.expand(-1, 3, -1, -1)),
        )


def test_adaptation_leaves_fitting_weights_alone(source):
    net = resnet()
    adapt_input_channels(net, 'sum')
    net.load_state_dict(source.state_dict())
    assert state_hash(net) == state_hash(source)


def test_adaptation_works_for_a_submodule(source):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.student = resnet(in_channels=1)
            adapt_input_channels(self.student, 'sum')

    model = Model()
    state = {f'student.{k}': v for k, v in source.state_dict().items()}
    model.load_state_dict(state)
    torch.testing.assert_close(
        model.student.conv1.weight[:, 0], source.conv1.weight.sum(1)
    )


def test_adaptation_mode_is_checked():
    with pytest.raises(ConfigError, match=r"'sum' or 'mean'.*'max'"):
        adapt_input_channels(resnet(), 'max')


def test_comparison_changes_nothing(source):
    net = resnet(in_channels=1)
    adapt_input_channels(net, 'sum')
    state = source.state_dict()
    before = state_hash(net), state_hash(source)
    assert not compare_state(net, state)
    assert state['conv1.weight'].shape[1] == 3
    assert (state_hash(net), state_hash(source)) == before


def test_state_hash_sees_names_types_shapes_and_values():
    base = nn.Linear(2, 3)

    def variant(change):
        net = copy.deepcopy(base)
        return state_hash(change(net) or net)

    def nudge(net):
        net.weight.data[0, 0] += 1e-6

    def reshape(net):
        net.weight.data = net.weight.data.reshape(2, 3)

    hashes = [
        variant(lambda net: None),
        variant(nudge),
        variant(reshape),
        variant(lambda net: net.bfloat16()),
        variant(lambda net: nn.Sequential(net)),
        state_hash(nn.BatchNorm1d(3)),  # has a scalar
    ]
    assert len(set(hashes)) == len(hashes)
    assert variant(lambda net: None) == state_hash(base)
