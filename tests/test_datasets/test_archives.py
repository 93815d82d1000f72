import io
import os
import struct
import sys
import time
import zipfile

import h5py
import numpy as np
import pytest
from torch.utils.data import DataLoader

from mmcmcd.datasets import PairedModalityDataset, archives
from mmcmcd.datasets.archives import (
    list_arrays,
    read_array,
    split_archive_path,
)
from mmcmcd.datasets.file_index import FileIndex
from mmcmcd.datasets.transforms import LoadArray
from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError

SIDES = dict(
    source=dict(folder='skeleton.npz', suffix=''),
    target=dict(folder='radar.h5/range', suffix=''),
)


def value(name):
    """Every array holds the number in its name."""
    return np.full((4, 2), int(name[1:]), np.float32)


def write_npz(path, names):
    np.savez(path, **{name: value(name) for name in names})


def write_h5(path, names, group='range'):
    with h5py.File(path, 'w') as file:
        file['other'] = np.zeros(3)
        for name in names:
            file[f'{group}/{name}'] = value(name)


def build(root, **kwargs):
    kwargs = {**dict(sides=SIDES), **kwargs}
    return PairedModalityDataset(str(root), **kwargs)


def ids(dataset):
    return [dataset.get_data_info(i)['pair_id'] for i in range(len(dataset))]


@pytest.fixture
def root(tmp_path):
    write_npz(tmp_path / 'skeleton.npz', ['k1', 'k2', 'k3'])
    write_h5(tmp_path / 'radar.h5', ['k1', 'k2', 'k3'])
    return tmp_path


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize(
    'path, parts',
    [
        ('a/b.npz/k', ('a/b.npz', 'k')),
        ('a/b.H5/g/k', ('a/b.H5', 'g/k')),
        ('b.hdf5', ('b.hdf5', '')),
        ('/a/b.npy', ('', '/a/b.npy')),
        ('a/npz/k', ('', 'a/npz/k')),
    ],
)
def test_split(path, parts):
    assert split_archive_path(path) == parts


def test_a_folder_may_be_called_like_an_archive(tmp_path):
    (tmp_path / 'clips.h5').mkdir()
    write_npz(tmp_path / 'clips.h5/a.npz', ['k1'])
    archive = str(tmp_path / 'clips.h5/a.npz')
    assert split_archive_path(f'{archive}/k1') == (archive, 'k1')


# -------------------------------------------------------------- reading


@pytest.mark.parametrize('name', ['skeleton.npz/k2', 'radar.h5/range/k2'])
def test_read(root, name):
    archive, member = split_archive_path(str(root / name))
    np.testing.assert_array_equal(read_array(archive, member), value('k2'))


def test_the_only_array_needs_no_name(tmp_path):
    write_npz(tmp_path / 'one.npz', ['k5'])
    array = read_array(str(tmp_path / 'one.npz'))
    np.testing.assert_array_equal(array, value('k5'))


def broken_member(path):
    """Spoil the stored bytes of the last array, not the table."""
    content = bytearray(path.read_bytes())
    place = content.rfind(b'\x93NUMPY')
    content[place + 130 : place + 140] = b'x' * 10
    path.write_bytes(content)


@pytest.mark.parametrize(
    'name, spoil, words',
    [
        ('a.npz/k1', lambda path: path.unlink(), 'does not exist'),
        ('plain/a.npz/k1', None, 'does not exist'),
        ('a.npz/k9', None, "no array 'k9'; it holds 6: k0, k1"),
        ('a.npz', None, 'more than one array; it holds 6: k0'),
        ('a.npz/k1', lambda path: path.write_bytes(b''), '(0 bytes)'),
        (
            'a.npz/k1',
            lambda path: path.write_bytes(path.read_bytes()[:-30]),
            'truncated',
        ),
        ('a.npz/k1', lambda path: np.save(path.open('wb'), [1]), 'no zip'),
        ('a.npz/k5', broken_member, 'CRC'),
        ('a.h5/g', None, "no array 'g'; it holds 7"),
        ('a.h5/g/k9', None, "no array 'g/k9'; it holds 7: g/k0"),
        ('a.h5/g/k1', lambda path: path.write_bytes(b'x' * 99), '99 bytes'),
    ],
)
def test_faults_name_the_file(tmp_path, name, spoil, words):
    names = [f'k{i}' for i in range(6)]
    write_npz(tmp_path / 'a.npz', names)
    write_h5(tmp_path / 'a.h5', names, 'g')
    (tmp_path / 'plain').write_bytes(b'no folder')
    archive, member = split_archive_path(str(tmp_path / name))
    if spoil:
        spoil(tmp_path / name.split('/')[0])
    with pytest.raises(UnreadableFileError) as caught:
        read_array(archive, member)
    assert words in str(caught.value) and archive in str(caught.value)


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / 'a.npz'
    np.savez(path, k1=np.array([dict(), 1], dtype=object))
    with pytest.raises(UnreadableFileError, match='k1.*allow_pickle'):
        read_array(str(path), 'k1')


@pytest.mark.parametrize('value', ['text', h5py.Empty('f')])
def test_hdf5_without_numbers(tmp_path, value):
    path = tmp_path / 'a.h5'
    with h5py.File(path, 'w') as file:
        file['k1'] = value
    with pytest.raises(UnreadableFileError, match='k1.*a text or nothing'):
        LoadArray()(dict(img_path=f'{path}/k1'))


def test_links_in_hdf5(tmp_path):
    path = tmp_path / 'a.h5'
    write_h5(path, ['k1'])
    with h5py.File(path, 'a') as file:
        file['soft'] = h5py.SoftLink('/range/k1')
        file['hard'] = file['range/k1']
        file['range/up'] = h5py.SoftLink('/')
        file['gone'] = h5py.SoftLink('/nowhere')
        file['out'] = h5py.ExternalLink('nowhere.h5', '/k')
    names = ['hard', 'other', 'range/k1', 'soft']
    assert list_arrays(str(path)) == names
    np.testing.assert_array_equal(read_array(str(path), 'soft'), value('k1'))


def test_missing_h5py_is_named(tmp_path, monkeypatch):
    write_h5(tmp_path / 'a.h5', ['k1'])
    monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(ConfigError, match=r'mmcmcd\[nyu\]'):
        list_arrays(str(tmp_path / 'a.h5'))


# ---------------------------------------------------------------- cache


def test_an_archive_is_opened_once(root, monkeypatch):
    opened = []
    really = archives._open

    def count(path):
        opened.append(path)
        return really(path)

    monkeypatch.setattr(archives, '_open', count)
    for _ in range(3):
        for name in ('k1', 'k2'):
            read_array(str(root / 'skeleton.npz'), name)
            read_array(str(root / 'radar.h5'), f'range/{name}')
    assert len(opened) == 2


@pytest.mark.parametrize('name', ['a.npz', 'a.h5'])
def test_a_changed_archive_is_opened_again(tmp_path, name):
    write = write_npz if name == 'a.npz' else write_h5
    group = '' if name == 'a.npz' else 'range/'
    path = tmp_path / name
    write(path, ['k1'])
    read_array(str(path), f'{group}k1')
    now = time.time_ns() + 10**9
    write(tmp_path / f'new_{name}', ['k2', 'k3'])
    os.replace(tmp_path / f'new_{name}', path)
    os.utime(path, ns=(now, now))
    array = read_array(str(path), f'{group}k3')
    np.testing.assert_array_equal(array, value('k3'))


@pytest.mark.parametrize('most', [0, 10**9])
def test_kept_arrays_stay_as_they_are(tmp_path, monkeypatch, most):
    """What a transform does to one sample does not reach the next."""
    monkeypatch.setattr(archives, '_MOST_KEPT', most)
    path = tmp_path / 'a.npz'
    np.savez(path, k1=np.array([[1, np.nan]], np.float32))
    for fill in (5.0, 7.0):
        load = LoadArray(invalid=fill)
        img = load(dict(img_path=f'{path}/k1'))['img']
        assert img.tolist() == [[1], [fill]]
        img += 100


def test_few_archives_stay_open(tmp_path):
    for number in range(20):
        write_npz(tmp_path / f'{number}.npz', [f'k{number}'])
        read_array(str(tmp_path / f'{number}.npz'))
    here = [
        os.readlink(f'/proc/self/fd/{name}')
        for name in os.listdir('/proc/self/fd')
        if os.path.exists(f'/proc/self/fd/{name}')
    ]
    assert 1 <= sum(str(tmp_path) in path for path in here) <= 8


def test_forked_workers_do_not_share_positions(tmp_path):
    """Two workers that read by one file position get each other's bytes."""
    rng = np.random.default_rng(0)
    names = [f'k{i}' for i in range(300)]
    noise = {name: rng.random((500, 2), np.float32) for name in names}
    np.savez(tmp_path / 'skeleton.npz', **noise)
    with h5py.File(tmp_path / 'radar.h5', 'w') as file:
        for name in names:
            file[f'range/{name}'] = noise[name]
    load = dict(
        type='mmcmcd.OnSide',
        sides=('source', 'target'),
        transforms=[dict(type='mmcmcd.LoadArray')],
    )
    dataset = build(tmp_path, pipeline=[load])
    dataset[0]  # opens both in this process
    loader = DataLoader(
        dataset,
        batch_size=1,
        num_workers=2,
        multiprocessing_context='fork',
        collate_fn=lambda batch: batch[0],
    )
    for item in loader:
        for side in ('source', 'target'):
            np.testing.assert_array_equal(
                item[side]['img'], noise[item['pair_id']].T
            )


# ---------------------------------------------------- pairs in archives


def test_folders(root):
    dataset = build(root)
    assert ids(dataset) == ['k1', 'k2', 'k3']
    item = dataset[1]
    assert item['source']['img_path'] == str(root / 'skeleton.npz/k2')
    assert item['target']['img_path'] == str(root / 'radar.h5/range/k2')


def test_whole_archive_beside_files(root):
    """Groups are sub-folders; the other side may be files."""
    for name in ('k1', 'k2', 'k3'):
        (root / f'files/range/{name}.jpg').parent.mkdir(
            parents=True, exist_ok=True
        )
        (root / f'files/range/{name}.jpg').write_bytes(b'x')
    (root / 'files/other.jpg').write_bytes(b'x')
    sides = dict(
        source=dict(folder='files', suffix='.jpg'),
        target=dict(folder='radar.h5', suffix=''),
    )
    assert ids(build(root, sides=sides)) == [
        'other',
        'range/k1',
        'range/k2',
        'range/k3',
    ]


def test_suffixes_in_one_archive(tmp_path):
    arrays = {f'{i}_{side}': np.ones(2) for i in 'ab' for side in ('x', 'y')}
    np.savez(tmp_path / 'all.npz', **arrays)
    sides = dict(
        source=dict(folder='all.npz', suffix='_x'),
        target=dict(folder='all.npz', suffix='_y'),
    )
    dataset = build(tmp_path, sides=sides)
    assert ids(dataset) == ['a', 'b']
    assert dataset[0]['target']['img_path'].endswith('all.npz/a_y')


def test_list(root):
    (root / 'few.txt').write_text('k3\nk1\n')
    assert ids(build(root, ann_file='few.txt')) == ['k3', 'k1']
    (root / 'paths.txt').write_text('k3 k1\n')
    item = build(root, ann_file='paths.txt')[0]
    assert item['pair_id'] == 'k3+k1'
    assert item['target']['img_path'] == str(root / 'radar.h5/range/k1')


def test_annotation(root):
    text = 'pair_id,source,target\na,skeleton.npz/k1,radar.h5/range/k2\n'
    (root / 'a.csv').write_text(text)
    sides = dict(source=dict(), target=dict())
    item = build(root, ann_file='a.csv', sides=sides)[0]
    assert item['target']['img_path'] == str(root / 'radar.h5/range/k2')


def test_missing_members_are_faults_like_missing_files(root):
    write_h5(root / 'radar.h5', ['k1', 'k3', 'k4'])
    with pytest.raises(DatasetError) as caught:
        build(root)
    assert '2 faulty and 2 complete' in str(caught.value)
    assert 'no target file: 1 (k2)' in str(caught.value)
    assert 'no source file: 1 (k4)' in str(caught.value)
    assert ids(build(root, strict=False)) == ['k1', 'k3']


@pytest.mark.parametrize(
    'folder, words',
    [
        ('gone.npz', 'does not exist. Check data_root'),
        ('radar.h5/gone', 'does not exist. Check data_root'),
        ('bad.npz', 'Cannot open'),
    ],
)
def test_missing_archive(root, folder, words):
    (root / 'bad.npz').write_bytes(b'x')
    sides = dict(SIDES, target=dict(folder=folder, suffix=''))
    with pytest.raises(DatasetError) as caught:
        build(root, sides=sides)
    assert words in str(caught.value) and folder in str(caught.value)


def test_missing_archive_of_a_list(root):
    (root / 'few.txt').write_text('k1\nk3\n')
    sides = dict(SIDES, target=dict(folder='gone.npz', suffix=''))
    with pytest.raises(DatasetError) as caught:
        build(root, ann_file='few.txt', sides=sides, strict=False)
    assert "gone.npz', does not exist" in str(caught.value)
    assert 'no target file' not in str(caught.value)


def test_names_of_an_archive_are_listed_once(root, monkeypatch):
    asked = []

    def count(archive):
        asked.append(archive)
        return list_arrays(archive)

    monkeypatch.setattr('mmcmcd.datasets.file_index.list_arrays', count)
    index = FileIndex()
    archive = str(root / 'radar.h5')
    for name in ('range/k1', 'range/k2', 'other', 'range/K9'):
        index.exists(f'{archive}/{name}')
    assert asked == [archive]
    assert index.exists(f'{archive}/range/k3')
    assert not index.exists(f'{archive}/range/k4')
    assert not index.exists(f'{archive}/gone/k4')


@pytest.mark.parametrize('fault', ['nan', 'short'])
def test_a_bad_array_drops_the_whole_pair(root, fault):
    with h5py.File(root / 'radar.h5', 'a') as file:
        del file['range/k2']
        bad = np.full((4, 2), np.nan) if fault == 'nan' else np.ones((1, 2))
        file['range/k2'] = bad
    pipeline = [
        dict(
            type='mmcmcd.OnSide',
            sides=('source', 'target'),
            transforms=[dict(type='mmcmcd.LoadArray', rate=1.0)],
        ),
        dict(type='mmcmcd.SharedTemporalCrop', duration=2.0),
    ]
    with pytest.raises(UnreadableFileError, match='radar.h5/range/k2'):
        build(root, pipeline=pipeline)[1]
    dataset = build(
        root, pipeline=pipeline, on_unreadable='skip', max_skip_fraction=0.5
    )
    assert [item['pair_id'] for item in dataset] == ['k1', 'k3', 'k3']
    assert dataset.num_skipped == 1


# -------------------------------------------------- archives not to trust


@pytest.fixture
def secret(tmp_path):
    """A file beside the archive's folder, which nobody asked for."""
    folder = tmp_path / 'secret'
    folder.mkdir()
    with h5py.File(folder / 'secret.h5', 'w') as file:
        file['k'] = np.arange(3.0)
        file['group/k'] = np.arange(3.0)
    (folder / 'raw.bin').write_bytes(np.arange(3.0).tobytes())
    return folder


def test_hdf5_links_that_lead_out_are_not_followed(tmp_path, secret):
    path = tmp_path / 'a.h5'
    write_h5(path, ['k1'])
    other = str(secret / 'secret.h5')
    with h5py.File(path, 'a') as file:
        file['out'] = h5py.ExternalLink(other, '/k')
        file['outer'] = h5py.ExternalLink(other, '/group')
        file['range/soft'] = h5py.SoftLink('/outer/k')
        file['round'] = h5py.SoftLink('/round')
        file['near'] = h5py.SoftLink('range/k1')
    assert list_arrays(str(path)) == ['near', 'other', 'range/k1']
    np.testing.assert_array_equal(read_array(str(path), 'near'), value('k1'))
    for name in ('out', 'outer/k', 'range/soft', 'round'):
        with pytest.raises(UnreadableFileError, match='no array'):
            read_array(str(path), name)
    # The other file is never opened, so it need not be there either.
    assert not any('secret' in p for p in open_files())


def open_files():
    folder = '/proc/self/fd'
    links = (os.path.join(folder, name) for name in os.listdir(folder))
    return [os.readlink(link) for link in links if os.path.lexists(link)]


def test_hdf5_values_that_are_elsewhere_are_refused(tmp_path, secret):
    path = tmp_path / 'a.h5'
    layout = h5py.VirtualLayout((3,), 'f8')
    layout[:] = h5py.VirtualSource(str(secret / 'secret.h5'), 'k', (3,))
    with h5py.File(path, 'w', libver='latest') as file:
        file.create_dataset(
            'raw', (3,), 'f8', external=[(str(secret / 'raw.bin'), 0, 24)]
        )
        file.create_virtual_dataset('virtual', layout)
        file['own'] = np.arange(3.0)
        within = h5py.VirtualLayout((3,), 'f8')
        within[:] = h5py.VirtualSource('.', 'own', (3,))
        file.create_virtual_dataset('within', within)
        # They would be read, as h5py shows:
        assert file['raw'][2] == file['virtual'][2] == 2
    for name, place in (('raw', 'raw.bin'), ('virtual', 'secret.h5')):
        with pytest.raises(UnreadableFileError, match=f'{place}.*not read'):
            read_array(str(path), name)
    assert read_array(str(path), 'within')[2] == 2


def test_hdf5_that_promises_too_much(tmp_path):
    path = tmp_path / 'a.h5'
    with h5py.File(path, 'w') as file:
        file.create_dataset('huge', (10**6, 10**6), 'f8', chunks=(10, 10))
        file.create_dataset('large', (10**4, 10), 'f8', chunks=(10, 10))
    assert path.stat().st_size < 10**5
    with pytest.raises(UnreadableFileError, match='8000000000000 bytes'):
        read_array(str(path), 'huge')
    # Zeros that were not written are no fault.
    assert read_array(str(path), 'large').shape == (10**4, 10)


def npy_header(shape):
    file = io.BytesIO()
    header = dict(descr='<f8', fortran_order=False, shape=shape)
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def test_npz_that_promises_too_much(tmp_path, monkeypatch):
    path = tmp_path / 'a.npz'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('claim.npy', npy_header((10**6, 10**6)) + bytes(8))
        file.writestr('bomb.npy', npy_header((2**20,)) + bytes(2**23))
        file.writestr('good.npy', npy_header((2,)) + bytes(16))
        file.writestr('text', b'no array')
    assert path.stat().st_size < 10**5
    with pytest.raises(UnreadableFileError, match='claims'):
        read_array(str(path), 'claim')
    with pytest.raises(UnreadableFileError, match='text'):
        read_array(str(path), 'text')
    assert read_array(str(path), 'good').shape == (2,)
    assert read_array(str(path), 'bomb').shape == (2**20,)
    monkeypatch.setattr(archives, '_MOST_UNPACKED', 2**22)
    monkeypatch.setattr(archives, '_MOST_KEPT', 0)
    monkeypatch.setattr(archives, '_opened', archives._OpenArchives(1))
    unpacked = []
    monkeypatch.setattr(
        zipfile.ZipFile, 'read', lambda *_: unpacked.append(1) or b''
    )
    with pytest.raises(UnreadableFileError, match='no array packs so well'):
        read_array(str(path), 'bomb')
    assert not unpacked


def test_npz_whose_directory_lies(tmp_path):
    """It says that a member is packed badly, but the file is short."""
    path = tmp_path / 'a.npz'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('a.npy', npy_header((2,)) + bytes(16))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b'PK\x01\x02')
    struct.pack_into('<II', content, entry + 20, 2**32 - 2, 2**32 - 2)
    path.write_bytes(bytes(content))
    with pytest.raises(UnreadableFileError, match='no array packs so well'):
        read_array(str(path), 'a')


def test_memory_that_is_not_there(root, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(archives, 'decode_npy', fail)
    with pytest.raises(UnreadableFileError, match='fit into memory'):
        read_array(str(root / 'skeleton.npz'), 'k2')


def test_a_damaged_array_is_named_and_the_others_are_read(tmp_path):
    path = tmp_path / 'a.h5'
    with h5py.File(path, 'w') as file:
        file['bad'] = np.arange(12.0).reshape(2, 6)
        file['good'] = np.arange(3.0)
        file['type'] = np.dtype('f8')  # no array
    content = bytearray(path.read_bytes())
    sizes = struct.pack('<QQ', 2, 6)
    place = content.index(sizes)
    content[place : place + 8] = b'\xff' * 8
    path.write_bytes(bytes(content))
    assert list_arrays(str(path)) == ['bad', 'good']
    np.testing.assert_array_equal(read_array(str(path), 'good'), np.arange(3))
    with pytest.raises(UnreadableFileError, match='a.h5/bad: damaged'):
        read_array(str(path), 'bad')


def test_hdf5_link_that_is_no_text(tmp_path):
    path = tmp_path / 'a.h5'
    with h5py.File(path, 'w') as file:
        file['good'] = np.arange(3.0)
        file['alias'] = h5py.SoftLink('/good')
    content = path.read_bytes().replace(b'alias', b'\xffl\xffas')
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r'Cannot open .*a\.h5'):
        list_arrays(str(path))
