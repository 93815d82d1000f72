import argparse
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import Command, Custom, write_pickles
from mmengine.logging import HistoryBuffer

from mmcmcd.checkpoints import (
    TRUSTED_VARIABLE,
    UnsafeCheckpointError,
    is_trusted,
    read_file,
    reading,
    trust,
)
from mmcmcd.errors import CheckpointError

FORMATS = pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old'])


def save(content, path, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def rewrite(path, old, new):
    """Change the pickle of a file, in an archive or not."""
    if not zipfile.is_zipfile(path):
        path.write_bytes(path.read_bytes().replace(old, new))
        return
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            changed = data.replace(old, new)
            archive.writestr(name, changed if 'data.pkl' in name else data)


def same(a, b):
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, HistoryBuffer):
        return same(a.data, b.data)
    if isinstance(a, argparse.Namespace):
        return same(vars(a), vars(b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return a == b


def weights():
    state = OrderedDict()
    state['backbone.conv.weight'] = torch.randn(2, 3)
    state['backbone.half'] = torch.randn(3).half()
    state['backbone.bf16'] = torch.randn(3).bfloat16()
    state['backbone.steps'] = torch.tensor(7)
    state['backbone.slice'] = torch.arange(12.0).reshape(3, 4).t()[1:]
    state['parameter'] = torch.nn.Parameter(torch.ones(2))
    state._metadata = OrderedDict({'': dict(version=1)})
    return state


def optimizer():
    layer = torch.nn.Linear(2, 2)
    used = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    used.step()
    return used.state_dict()


def scheduler(name='OneCycleLR', **kwargs):
    from mmengine.optim import scheduler as schedulers

    layer = torch.nn.Linear(2, 2)
    used = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    return getattr(schedulers, name)(used, **kwargs).state_dict()


def mmengine_file():
    """As Runner.save_checkpoint writes it, here and in official mmengine."""
    curve = HistoryBuffer([1.5, 2.0], [1, 1])
    hub = dict(
        log_scalars=OrderedDict({'train/loss': curve, 'e': HistoryBuffer()}),
        runtime_info=OrderedDict(
            cfg="model = dict(type='ResNet')\n",
            best_score=np.float64(0.5),
            loop_stage='train',
        ),
        resumed_keys=OrderedDict({'train/loss': True}),
    )
    meta = dict(
        epoch=2,
        iter=4,
        cfg="model = dict(type='ResNet')\n",
        seed=np.int64(3),
        mmengine_version='0.10.7',
        dataset_meta=dict(
            classes=('a', 'b'),
            palette=np.arange(6, dtype=np.uint8).reshape(2, 3),
            names=np.array(['a', 'bcd']),
            flags=np.array([True, False]),
        ),
    )
    return dict(
        meta=meta,
        state_dict=weights(),
        message_hub=hub,
        optimizer=optimizer(),
        param_schedulers=[
            scheduler('OneCycleLR', eta_max=0.1, total_steps=9),
            scheduler('MultiStepLR', milestones=[2, 3]),
            scheduler('LinearMomentum'),
        ],
        ema_state_dict=weights(),
    )


def mmcv_file():
    meta = dict(
        mmcv_version='1.7.0',
        epoch=1,
        iter=9,
        hook_msgs=dict(best_score=np.float32(0.5)),
        CLASSES=['road', 'car'],
        PALETTE=[[1, 2, 3], np.array([4, 5, 6])],
    )
    return dict(meta=meta, state_dict=weights(), optimizer=optimizer())


def moco_file():
    return dict(
        epoch=200,
        arch='resnet50',
        state_dict=OrderedDict({'module.encoder_q.a': torch.ones(2)}),
        optimizer=optimizer(),
    )


def dino_file():
    """DINO, MAE and torchvision's references store their arguments."""
    args = argparse.Namespace(lr=0.1, arch='vit', crops=(1, 2), mean=None)
    return dict(teacher=weights(), student=weights(), epoch=9, args=args)


def random_states():
    return dict(
        numpy=np.random.RandomState(0).get_state(),
        generator=np.random.default_rng(0).bit_generator.state,
        torch=torch.get_rng_state(),
        fortran=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        big_endian=np.arange(3, dtype='>i4'),
        scalar_array=np.array(5.0),
        text=np.str_('abc'),
        dtype=np.dtype('float32'),
        nothing=np.zeros((0, 3)),
        slice=slice(1, 2),
    )


FAMILIES = dict(
    mmengine=mmengine_file,
    mmcv=mmcv_file,
    torchvision=weights,
    timm=lambda: dict(model=weights(), epoch=3),
    moco=moco_file,
    dino=dino_file,
    random_states=random_states,
)


@FORMATS
@pytest.mark.parametrize('numpy', ['numpy._core', 'numpy.core'])
@pytest.mark.parametrize('family', FAMILIES)
def test_what_others_write_is_read(family, numpy, zipped, tmp_path):
    content = FAMILIES[family]()
    path = save(content, tmp_path / 'a.pth', zipped)
    other = {'numpy._core': 'numpy.core', 'numpy.core': 'numpy._core'}[numpy]
    rewrite(path, other.encode(), numpy.encode())
    read = read_file(path, 'cpu')
    assert type(read) is type(content)
    assert same(content, read)


def test_arrays_are_pickled_as_they_were(tmp_path):
    """Runner.resume compares the pickles of meta data."""
    content = mmengine_file()['meta']['dataset_meta']
    read = read_file(save(content, tmp_path / 'a.pth'))
    assert pickle.dumps(read) == pickle.dumps(content)
    read['palette'][0] = 9  # not read-only either


def test_buffer_of_losses_goes_on(tmp_path):
    content = dict(a=HistoryBuffer([1.0, 3.0], [1, 1]))
    buffer = read_file(save(content, tmp_path / 'a.pth'))['a']
    buffer.update(5.0)
    assert buffer.mean() == buffer.statistics('mean') == 3


def test_functions_of_other_buffers_are_not_replaced(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(HistoryBuffer._statistics_methods, 'mean', torch.Size)
        path = save(HistoryBuffer([1.0], [1]), tmp_path / 'a.pth')
    assert read_file(path).statistics('mean') == 1


def test_message_is_one_printable_line(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_bytes(b'c\x1b[2Jos\nsystem\n.')
    with pytest.raises(UnsafeCheckpointError) as caught:
        read_file(path)
    assert '?[2Jos.system' in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    'name', ['zip', 'legacy', 'top', 'pickle2', 'pickle', 'text', 'tar']
)
def test_program_is_refused(name, tmp_path):
    marker = tmp_path / 'marker'
    file = write_pickles(tmp_path, marker, weights())[name]
    with pytest.raises(UnsafeCheckpointError) as caught:
        read_file(file)
    assert not marker.exists()
    message = str(caught.value)
    assert file.name in message
    assert 'program' in message
    assert f'--trust-checkpoint {file}' in message
    assert f'{TRUSTED_VARIABLE}={file}' in message
    assert '\n' not in message
    if name in ('zip', 'legacy', 'top', 'text'):
        assert 'system' in message


class Call:
    """What a file may ask for when it is read."""

    def __init__(self, function, *args, state=None):
        self.parts = (function, args, *([] if state is None else [state]))

    def __reduce__(self):
        return self.parts


def float_type(*state):
    return Call(np.dtype, 'f8', False, True, state=(3, '<', *state))


@pytest.mark.parametrize(
    'evil',
    [
        Call(getattr, torch.nn.Module, 'apply'),
        Call(getattr, HistoryBuffer, '__init__'),
        Call(np.ndarray, (1,), 'O', b'\x41' * 8),
        Call(np.ndarray, (1,), 'f8'),
        Call(np.dtype, 'O'),
        Call(np.dtype, [('a', 'O')]),
        float_type(None, ('a',), {'a': 1}, -1, -1, 0),
        float_type(('O', (1,)), None, None, -1, -1, 0),
        np.array([{}, 1], object),
        np.zeros(2, [('a', 'f8')]),
        eval,
        Path('a'),
    ],
    ids=lambda evil: str(getattr(evil, 'parts', evil))[:40],
)
def test_neither_code_nor_pointers_come_from_a_file(evil, tmp_path):
    path = save(dict(a=[evil]), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r"a\.pth' (is ref|cannot be r)"):
        read_file(path)


@pytest.mark.parametrize(
    ('old', 'new'),
    [(b'K\x01K\x03\x85', b'K\x01K\x04\x85'), (b'f8', b'f2'), (b'f8', b'O8')],
)
def test_array_of_another_size_than_said_is_refused(old, new, tmp_path):
    path = save(np.ones(3), tmp_path / 'a.pth')
    assert read_file(path).shape == (3,)
    rewrite(path, old, new)
    with pytest.raises(CheckpointError, match='cannot be read'):
        read_file(path)


@pytest.mark.parametrize(
    ('data', 'kind'),
    [
        (b'', 'an empty file'),
        (b'<!DOCTYPE html><p>404', 'a web page'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'a Git LFS pointer'),
        (b'\x1f\x8b\x08\x00', 'a gzip archive'),
        (b'hello', 'not written by torch.save'),
        (b'\x80\x02}q\x00', 'truncated'),
        (None, 'truncated'),
    ],
)
def test_what_is_no_checkpoint_is_named(data, kind, tmp_path):
    path = tmp_path / 'a.pth'
    if data is None:
        data = save(weights(), path).read_bytes()[:-500]
    path.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=rf'a\.pth.*cannot be read.*it is.*{kind}'
    ) as caught:
        read_file(path)
    assert not isinstance(caught.value, UnsafeCheckpointError)


def test_torchscript_is_a_program(tmp_path):
    path = tmp_path / 'a.pth'
    torch.jit.script(torch.nn.Identity()).save(str(path))
    with pytest.raises(UnsafeCheckpointError, match='TorchScript'):
        read_file(path)


def test_deep_nesting_ends_in_the_error(tmp_path):
    data = b'\x80\x02' + b']' * 5000 + b'a' * 4999 + b'.'
    path = save(dict(a=1), tmp_path / 'a.pth')
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if 'data.pkl' in n)
        version = archive.read(name.replace('data.pkl', 'version'))
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(name, data)
        archive.writestr(name.replace('data.pkl', 'version'), version)
    with pytest.raises(CheckpointError, match='RecursionError'):
        read_file(path)


def test_missing_file_is_another_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / 'none.pth')


def test_lists_of_others_are_left_alone(tmp_path):
    """What a program allowed for itself stays allowed, and no more is."""
    path = save(dict(c=Custom(), h=HistoryBuffer()), tmp_path / 'a.pth')
    with torch.serialization.safe_globals([Custom, slice]):
        before = set(torch.serialization.get_safe_globals())
        assert read_file(path)['c'].value == 7
        assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(UnsafeCheckpointError):
        read_file(path)


@pytest.fixture
def no_trust(monkeypatch):
    monkeypatch.setenv(TRUSTED_VARIABLE, '')


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(
        reading, 'print_log', lambda text, **_: lines.append(text)
    )
    return lines


def test_trusted_file_is_read_with_a_warning(tmp_path, no_trust, warnings):
    path = save(dict(a=Custom(), meta=dict(epoch=1)), tmp_path / 'a.pth')
    link = tmp_path / 'link.pth'
    link.symlink_to(path)
    other = save(dict(a=Custom()), tmp_path / 'b.pth')
    trust('https://host:8080/x.pth')
    trust(str(link))
    assert read_file(path)['a'].value == 7
    (warning,) = warnings
    assert 'hostile.Custom' in warning
    assert 'named as trusted' in warning
    with pytest.raises(UnsafeCheckpointError):
        read_file(other)


def test_trusted_file_that_needs_no_trust_runs_nothing(
    tmp_path, no_trust, warnings, monkeypatch
):
    path = save(weights(), tmp_path / 'a.pth')
    trust(str(path))
    loads = []
    load = torch.load
    monkeypatch.setattr(
        torch,
        'load',
        lambda *args, **kw: loads.append(kw) or load(*args, **kw),
    )
    read_file(path)
    assert [kw['weights_only'] for kw in loads] == [True]
    assert not warnings


def test_trusted_program_is_run(tmp_path, no_trust):
    marker = tmp_path / 'marker'
    path = save([Command(marker)], tmp_path / 'a.pth')
    trust(str(path))
    read_file(path)
    assert marker.exists()


def test_trusted_file_that_is_broken_is_an_error(tmp_path, no_trust):
    path = tmp_path / 'a.pth'
    path.write_bytes(b'hello')
    trust(str(path))
    with pytest.raises(CheckpointError, match='cannot be read'):
        read_file(path)


def test_names_of_trusted_checkpoints(monkeypatch, tmp_path):
    monkeypatch.delenv(TRUSTED_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert not is_trusted('a.pth')
    names = [
        'https://host:8080/a.pth',
        'torchvision://resnet50',
        'https://host/b.pth',
        'a.pth',
    ]
    for name in names:
        assert not is_trusted(name)
        trust(name)
    assert all(is_trusted('other', name) for name in names)
    assert is_trusted(str(tmp_path / 'x' / '..' / 'a.pth'))
    assert not is_trusted('b.pth', 'https://host/a.pth', 'host', '8080/a.pth')
    assert os.environ[TRUSTED_VARIABLE].startswith(names[0] + os.pathsep)
    with pytest.raises(CheckpointError, match='rename'):
        trust(f'a{os.pathsep}b.pth')
