import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmcmcd.datasets import nyu_meta
from mmcmcd.datasets.converters import convert_nyu_depth_v2
from mmcmcd.datasets.converters.nyu_layout import (
    is_complete,
    to_millimetres,
)
from mmcmcd.errors import ConfigError, DatasetError, UnreadableFileError

h5py = pytest.importorskip('h5py')
ROOT = Path(__file__).parents[2]
FRAMES, WIDTH, HEIGHT = 6, 16, 12
LAYOUT = dict(num_frames=FRAMES, frame_size=(WIDTH, HEIGHT))


def make_mat(path, drop=(), scenes=True, **replace):
    """Write a file as MATLAB v7.3 does: user block, transposed arrays."""
    rng = np.random.default_rng(0)
    # Frames of one flat colour, dark but for the corner top right.
    rgb = np.full((FRAMES, HEIGHT, WIDTH, 3), 20, np.uint8)
    rgb[:, :4, 12:] = (250, 130, 10)
    depth = rng.uniform(0.7, 9, (FRAMES, HEIGHT, WIDTH)).astype(np.float32)
    depth[0, 0, :4] = np.nan, np.inf, -1.0, 70.0
    label = rng.integers(0, 895, (FRAMES, HEIGHT, WIDTH)).astype(np.uint16)
    arrays = dict(images=rgb.transpose(0, 3, 2, 1),
                  depths=depth.transpose(0, 2, 1),
                  labels=label.transpose(0, 2, 1))  # fmt: skip
    arrays.update(replace)
    with h5py.File(path, 'w', userblock_size=512) as file:
        for name, array in arrays.items():
            if name not in drop:
                chunks = (1, *array.shape[1:])
                file.create_dataset(
                    name, data=array, chunks=chunks, compression='gzip'
                )
        if scenes:
            cells = file.create_dataset('scenes', (1, FRAMES), h5py.ref_dtype)
            for i in range(FRAMES):
                text = f'kitchen_{i // 2:04d}'.encode('utf-16-le')
                text = np.frombuffer(text, np.uint16)[:, None]
                cells[0, i] = file.create_dataset(f'#refs#/{i}', data=text).ref
    with open(path, 'r+b') as file:
        file.write(b'MATLAB 7.3 MAT-file')
    return rgb, depth, label


@pytest.fixture
def mat(tmp_path):
    path = tmp_path / 'nyu.mat'
    return path, *make_mat(path)


def stamps(root):
    return {p: p.stat().st_mtime_ns for p in root.rglob('*.*g')}


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize('suffix', ['png', 'jpg'])
def test_content_and_orientation(mat, tmp_path, suffix):
    path, rgb, depth, label = mat
    out = tmp_path / 'out'
    done = convert_nyu_depth_v2(path, out, suffix, **LAYOUT)
    assert done == dict(converted=FRAMES, skipped=0)
    assert not list(out.rglob('.*.part'))
    for i in range(FRAMES):
        image = read(out / 'rgb' / f'{i:04d}.{suffix}')[:, :, ::-1]
        assert image.shape == (HEIGHT, WIDTH, 3)
        if suffix == 'png':
            assert np.array_equal(image, rgb[i])
        else:  # the lit corner is the same, up to compression
            assert image[:3, 13:].mean(axis=(0, 1)) == pytest.approx(
                [250, 130, 10], abs=15
            )
            assert image[5:, :11].max() < 60
        stored = read(out / 'depth' / f'{i:04d}.png')
        assert stored.dtype == np.uint16
        good = np.isfinite(depth[i]) & (depth[i] > 0) & (depth[i] < 60)
        error = stored[good] / 1000 - depth[i][good]
        assert np.abs(error).max() <= 0.5e-3 + 1e-6
        label40 = read(out / 'label40' / f'{i:04d}.png')
        assert np.array_equal(label40, nyu_meta.map_raw_to_40(label[i]))
        assert np.array_equal(
            read(out / 'label13' / f'{i:04d}.png'),
            nyu_meta.map_40_to_13(label40),
        )
    first = read(out / 'depth/0000.png')
    assert first[0, :4].tolist() == [0, 0, 0, 65535]


def test_lists(mat, tmp_path):
    convert_nyu_depth_v2(mat[0], tmp_path / 'out', **LAYOUT)
    splits = tmp_path / 'out' / 'splits'
    # Official train ids begin with 2, 3, 4, 5; test ids with 0, 1.
    assert (splits / 'train.txt').read_text() == '0002\n0003\n0004\n0005\n'
    assert (splits / 'test.txt').read_text() == '0000\n0001\n'
    assert (splits / 'pairs_train.csv').read_text().split() == [
        'pair_id,group_id', '0002,kitchen_0001', '0003,kitchen_0001',
        '0004,kitchen_0002', '0005,kitchen_0002',
    ]  # fmt: skip
    classes = (tmp_path / 'out/classes40.csv').read_text().splitlines()
    assert len(classes) == 41 and classes[1] == '0,wall'
    classes = (tmp_path / 'out/classes13.csv').read_text().splitlines()
    assert len(classes) == 14 and classes[13] == '12,window'


def test_pairs_load_with_groups(mat, tmp_path):
    from mmcmcd.datasets import NYURGBDPairs

    convert_nyu_depth_v2(mat[0], tmp_path / 'out', **LAYOUT)
    data = NYURGBDPairs(
        data_root=str(tmp_path / 'out'), ann_file='splits/pairs_train.csv'
    )
    a, b, c, d = (item['group_index'] for item in data)
    assert a == b != c == d
    assert data[0]['target']['img_path'].endswith('depth/0002.png')


def test_no_scenes(tmp_path, capsys):
    make_mat(tmp_path / 'nyu.mat', scenes=False)
    convert_nyu_depth_v2(tmp_path / 'nyu.mat', tmp_path / 'out', **LAYOUT)
    assert 'names no scenes' in capsys.readouterr().out
    assert not list((tmp_path / 'out').rglob('pairs_*'))


def test_resume_redoes_only_what_is_broken(mat, tmp_path):
    out = tmp_path / 'out'
    convert_nyu_depth_v2(mat[0], out, **LAYOUT)
    content = (out / 'depth/0001.png').read_bytes()
    before = stamps(out)
    done = convert_nyu_depth_v2(mat[0], out, **LAYOUT)
    assert done == dict(converted=0, skipped=FRAMES)
    assert stamps(out) == before
    (out / 'depth/0001.png').write_bytes(content[:-20])
    (out / 'rgb/0003.jpg').write_bytes(b'')
    (out / 'label13/0004.png').unlink()
    done = convert_nyu_depth_v2(mat[0], out, **LAYOUT)
    assert done == dict(converted=3, skipped=3)
    assert (out / 'depth/0001.png').read_bytes() == content
    after = stamps(out)
    changed = {p.stem for p in after if after[p] != before.get(p)}
    assert changed == {'0001', '0003', '0004'}


def test_interrupted_run_goes_on(mat, tmp_path, monkeypatch):
    import mmcmcd.datasets.converters.nyu_depth_v2 as module

    real, written = module.write_frame, []

    def stop_at_third(root, name, *args):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(name)
        real(root, name, *args)

    monkeypatch.setattr(module, 'write_frame', stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        convert_nyu_depth_v2(mat[0], tmp_path / 'out', **LAYOUT)
    monkeypatch.setattr(module, 'write_frame', real)
    done = convert_nyu_depth_v2(mat[0], tmp_path / 'out', **LAYOUT)
    assert done == dict(converted=4, skipped=2)


def test_reads_one_frame_at_a_time(mat, tmp_path, monkeypatch):
    keys, real = [], h5py.Dataset.__getitem__

    def record(self, key):
        if self.ndim > 2:
            keys.append(key)
        return real(self, key)

    monkeypatch.setattr(h5py.Dataset, '__getitem__', record)
    convert_nyu_depth_v2(mat[0], tmp_path / 'out', **LAYOUT)
    assert keys == [i for i in range(FRAMES) for _ in range(3)]


def test_other_suffix_in_the_folder(mat, tmp_path):
    convert_nyu_depth_v2(mat[0], tmp_path / 'out', 'png', **LAYOUT)
    with pytest.raises(DatasetError, match='--rgb-format png'):
        convert_nyu_depth_v2(mat[0], tmp_path / 'out', 'jpg', **LAYOUT)
    with pytest.raises(ConfigError, match="'bmp'"):
        convert_nyu_depth_v2(mat[0], tmp_path / 'out', 'bmp', **LAYOUT)


def test_wrong_files(tmp_path):
    path, out = tmp_path / 'nyu.mat', tmp_path / 'out'

    def fails(match, error=DatasetError, **layout):
        with pytest.raises(error, match=match):
            convert_nyu_depth_v2(path, out, **{**LAYOUT, **layout})
        assert not out.exists()

    fails('does not exist')
    path.write_text('<html>404</html>')
    fails('16 bytes, starting with .*not a MATLAB v7.3')
    make_mat(path, drop=['depths'])
    fails("no array 'depths'; it has: images, labels, scenes")
    make_mat(path)
    fails(r'\(6, 3, 16, 12\), expected \(1449, 3, 16, 12\)', num_frames=1449)
    fails(r'expected \(6, 3, 640, 480\)', frame_size=(640, 480))
    make_mat(path, labels=np.zeros((FRAMES, WIDTH, HEIGHT), np.uint8))
    fails("'labels' .* is uint8, expected uint16")


@pytest.mark.parametrize('keep', [0.5, 0.9])
def test_partial_download(mat, tmp_path, keep):
    content = mat[0].read_bytes()
    mat[0].write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DatasetError, match='download was cut off'):
        convert_nyu_depth_v2(mat[0], tmp_path / 'out', **LAYOUT)


def test_damaged_frame(mat, tmp_path):
    path, out = mat[0], tmp_path / 'out'
    with h5py.File(path) as file:
        chunk = file['depths'].id.get_chunk_info(3)
        # Chunk offsets do not count the user block.
        start = chunk.byte_offset
        if start + 512 + chunk.size <= path.stat().st_size:
            start += 512 * (file.userblock_size > 0)
    content = bytearray(path.read_bytes())
    content[start : start + chunk.size // 2] = bytes(chunk.size // 2)
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r'frame \d of .*damaged'):
        convert_nyu_depth_v2(path, out, **LAYOUT)


def test_missing_h5py(mat, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(ConfigError, match='pip install h5py'):
        convert_nyu_depth_v2(mat[0], tmp_path / 'out', **LAYOUT)


def test_tool_ends_with_one_message(tmp_path):
    run = subprocess.run(
        [sys.executable, 'tools/dataset_converters/nyu_depth_v2.py',
         '--mat', 'none.mat', '--out', str(tmp_path / 'out')],
        cwd=ROOT, capture_output=True, text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    assert run.returncode == 2
    assert "'none.mat' does not exist" in run.stderr
    assert 'Traceback' not in run.stderr


def test_millimetres_round_and_clip():
    metres = np.array([0.0, 0.0004, 0.0006, 1.2344, 1.2346, 65.6, np.nan])
    assert to_millimetres(metres).tolist() == [0, 0, 1, 1234, 1235, 65535, 0]


def test_a_file_that_cannot_be_read_is_not_complete(tmp_path):
    (tmp_path / 'x.png').write_bytes(b'old')
    assert not is_complete(tmp_path / 'x.png')
    assert not is_complete(tmp_path / 'none.png')


@pytest.mark.parametrize('name', ['images', 'depths', 'scenes'])
@pytest.mark.parametrize('how', ['link', 'storage'])
def test_values_of_other_files_are_not_read(mat, tmp_path, name, how):
    path, other = mat[0], tmp_path / 'other.h5'
    with h5py.File(path, 'a') as file, h5py.File(other, 'w') as elsewhere:
        file.copy(name, elsewhere)
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        if how == 'link':
            file[name] = h5py.ExternalLink(str(other), f'/{name}')
        else:
            size = dtype.itemsize * int(np.prod(shape))
            (tmp_path / 'raw').write_bytes(bytes(size))
            file.create_dataset(
                name, shape, dtype, external=[(str(tmp_path / 'raw'), 0, size)]
            )
    if name == 'scenes':  # optional
        convert_nyu_depth_v2(path, tmp_path / 'out', **LAYOUT)
        assert not list((tmp_path / 'out/splits').glob('pairs_*'))
        return
    words = 'no array' if how == 'link' else 'not read'
    with pytest.raises(DatasetError, match=f'{name}.*{words}|{words}.*{name}'):
        convert_nyu_depth_v2(path, tmp_path / 'out', **LAYOUT)
