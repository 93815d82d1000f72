"""A broken pair never trains, never vanishes, never becomes a mixed one."""

import io
import random
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmcmcd.datasets import PairedModalityDataset
from mmcmcd.datasets.pair_audit import audit_pairs
from mmcmcd.datasets.transforms.random_state import rng_state, set_rng_state
from mmcmcd.errors import BrokenPairError, DatasetError, UnreadableFileError
from mmcmcd.registry import TRANSFORMS

NUMBER, BROKEN = 6, 2
HUGE = 60000


def write_pair(root, i, size=(12, 8)):
    width, height = size
    for folder, image in (
        ('rgb', np.full((height, width, 3), 10 * i, np.uint8)),
        ('depth', np.full((height, width), 1000 * (i + 1), np.uint16)),
        ('label', np.full((height, width), i, np.uint8)),
    ):
        (root / folder).mkdir(exist_ok=True)
        suffix = 'jpg' if folder == 'rgb' else 'png'
        cv2.imwrite(str(root / f'{folder}/{i}.{suffix}'), image)


@pytest.fixture
def root(tmp_path):
    for i in range(NUMBER):
        write_pair(tmp_path, i)
    return tmp_path


def build(root, *more, **kwargs):
    load = [
        dict(
            type='mmcmcd.OnSide',
            sides=side,
            transforms=[dict(type=f'mmcmcd.{loader}', **options)],
        )
        for side, loader, options in (
            ('source', 'LoadImageStrict', {}),
            (
                'target',
                'LoadDepthFromFile',
                dict(depth_scale=1000.0, expected_dtype='uint16'),
            ),
        )
    ]
    flip = dict(type='mmcv.RandomFlip', prob=0.5)
    return PairedModalityDataset(
        str(root),
        seg_map=dict(folder='label', suffix='.png'),
        pipeline=[
            dict(type='mmseg.LoadAnnotations'),
            *load,
            dict(type='mmcmcd.SharedGeometry', transforms=[flip]),
            *more,
        ],
        **kwargs,
    )


def cut(path, size=20):
    path.write_bytes(path.read_bytes()[:-size])


def resize(path):
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), cv2.resize(image, (14, 8)))


def png_bomb(width=HUGE, height=HUGE):
    head = struct.pack('>IIBBBBB', width, height, 16, 0, 0, 0, 0)
    chunks = [(b'IHDR', head), (b'IDAT', zlib.compress(b'0')), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(body))
        + kind
        + body
        + struct.pack('>I', zlib.crc32(kind + body))
        for kind, body in chunks
    )


def jpeg_bomb(width=HUGE, height=HUGE):
    content = bytearray(cv2.imencode('.jpg', np.zeros((8, 8), np.uint8))[1])
    place = content.index(b'\xff\xc0')
    content[place + 5 : place + 9] = struct.pack('>HH', height, width)
    return bytes(content)


def tiff_bomb(width=HUGE, height=HUGE, order='<'):
    mark = b'II*\0' if order == '<' else b'MM\0*'
    entries = [(256, 4, 1, width), (257, 4, 1, height)]
    body = b''.join(struct.pack(f'{order}HHII', *entry) for entry in entries)
    return mark + struct.pack(f'{order}IH', 8, len(entries)) + body + bytes(4)


CASES = {
    'truncated jpg': ('rgb/2.jpg', cut, ['truncated', 'again']),
    'empty jpg': (
        'rgb/2.jpg',
        lambda p: p.write_bytes(b''),
        ['0 bytes', 'Restore it'],
    ),
    'empty png': (
        'depth/2.png',
        lambda p: p.write_bytes(b''),
        ['0 bytes', 'Restore it'],
    ),
    'truncated png': ('depth/2.png', cut, ['truncated', 'again']),
    'bit depth': (
        'depth/2.png',
        lambda p: cv2.imwrite(str(p), np.ones((8, 12), np.uint8)),
        ['stores uint8', 'expected_dtype is uint16', 'Convert'],
    ),
    'size of a side': (
        'depth/2.png',
        resize,
        ['source 12x8', 'target 14x8', 'repair the data'],
    ),
    'size of the map': (
        'label/2.png',
        resize,
        ['source 12x8', 'gt_seg_map 14x8', 'repair the data'],
    ),
    'truncated map': ('label/2.png', cut, ['truncated', 'again']),
    'map of text': (
        'label/2.png',
        lambda p: p.write_text('404'),
        ['not an image', '404'],
    ),
    'deleted map': ('label/2.png', lambda p: p.unlink(), ['does not exist']),
    'PNG bomb': (
        'depth/2.png',
        lambda p: p.write_bytes(png_bomb()),
        ['60000 x 60000', 'max_pixels'],
    ),
    'JPEG bomb': (
        'rgb/2.jpg',
        lambda p: p.write_bytes(jpeg_bomb()),
        ['60000 x 60000', 'max_pixels'],
    ),
    'TIFF bomb': (
        'depth/2.png',
        lambda p: p.write_bytes(tiff_bomb()),
        ['60000 x 60000', 'max_pixels'],
    ),
    'map bomb': (
        'label/2.png',
        lambda p: p.write_bytes(png_bomb()),
        ['60000 x 60000', 'max_pixels'],
    ),
    'npy bomb': (
        'depth/2.png',
        lambda p: p.write_bytes(npy_bomb()),
        ['claims (1000000, 1000000)'],
    ),
    'deleted partner': (
        'depth/2.png',
        lambda p: p.unlink(),
        ['does not exist', 'Check data_root'],
    ),
}


def npy_bomb():
    file = io.BytesIO()
    header = dict(descr='<f8', fortran_order=False, shape=(10**6, 10**6))
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(16)


@pytest.mark.parametrize('case', CASES)
def test_broken_pair(root, case):
    name, spoil, words = CASES[case]
    strict = build(root)
    skipping = build(root, on_unreadable='skip', max_skip_fraction=0.2)
    spoil(root / name)
    with pytest.raises(BrokenPairError) as error:
        strict[BROKEN]
    message = str(error.value)
    assert message.count("'2'") == 1
    assert all(word in message for word in words), message
    if 'size' not in case:
        assert isinstance(error.value, UnreadableFileError)
        assert str(root / name) in message
    got = [skipping[i] for i in range(NUMBER)]
    # The next pair takes its place, and every pair is of one number.
    assert [int(item['pair_id']) for item in got] == [0, 1, 3, 3, 4, 5]
    for item in got:
        i = int(item['pair_id'])
        assert abs(int(item['source']['img'].mean()) - 10 * i) <= 1
        assert (item['target']['img'] == i + 1).all()
        assert (item['gt_seg_map'] == i).all()
        shapes = {
            item['source']['img'].shape[:2],
            item['target']['img'].shape,
            item['gt_seg_map'].shape,
        }
        assert len(shapes) == 1
    assert skipping.num_skipped == 1


@pytest.mark.parametrize('name', ['rgb/2.jpg', 'depth/2.png', 'label/2.png'])
def test_partner_that_is_missing_from_the_start(root, name, monkeypatch):
    warnings = []
    monkeypatch.setattr(
        'mmcmcd.datasets.paired_dataset.print_log',
        lambda text, **_: warnings.append(text),
    )
    (root / name).unlink()
    with pytest.raises(DatasetError) as error:
        build(root)
    assert '1 faulty and 5 complete pairs' in str(error.value)
    assert ': 1 (2)' in str(error.value) and 'Mend' in str(error.value)
    dataset = build(root, strict=False)
    ids = [dataset[i]['pair_id'] for i in range(len(dataset))]
    assert ids == list('01345')
    assert len(warnings) == 1 and '1 faulty' in warnings[0]


def test_sizes_that_the_config_makes_differ_are_never_skipped(root):
    @TRANSFORMS.register_module(force=True)
    class CropTheFirst:
        moves_pixels_only = True
        calls = 0

        def __call__(self, item):
            type(self).calls += 1
            if type(self).calls % 3 == 1:
                item['img'] = item['img'][1:]
            return item

    crop = dict(type='mmcmcd.CropTheFirst')
    shared = dict(type='mmcmcd.SharedGeometry', transforms=[crop])
    dataset = build(root, shared, on_unreadable='skip')
    with pytest.raises(DatasetError, match='differ after') as error:
        dataset[0]
    assert not isinstance(error.value, BrokenPairError)
    assert dataset.num_skipped == 0


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('kind', ['size of a side', 'truncated jpg'])
def test_too_many_broken_pairs_stop_training(root, workers, kind):
    _, spoil, _ = CASES[kind]
    for i in (1, 2, 4):
        name = f'rgb/{i}.jpg' if 'jpg' in kind else f'depth/{i}.png'
        spoil(root / name)
    skipping = dict(on_unreadable='skip', max_skip_fraction=0.4)
    loader = DataLoader(
        build(root, **skipping), num_workers=workers, collate_fn=list
    )
    with pytest.raises(DatasetError) as error:
        list(loader)
    assert '3 of 6 pairs' in str(error.value)
    assert 'max_skip_fraction=0.4' in str(error.value)
    skipping['max_skip_fraction'] = 0.5
    loader = DataLoader(
        build(root, **skipping), num_workers=workers, collate_fn=list
    )
    seen = [item['pair_id'] for batch in loader for item in batch]
    assert seen == list('033355') and loader.dataset.num_skipped == 3


# ------------------------------------------------------- random numbers


@TRANSFORMS.register_module()
class DrawThenFail:
    """Draws from every generator, then rejects some pairs."""

    def __init__(self, reject):
        self.reject = reject

    def __call__(self, results):
        results['drawn'] = (
            random.random(),
            np.random.random_sample(),
            torch.rand(1).item(),
        )
        if results['pair_id'] in self.reject:
            raise BrokenPairError('broken')
        return results


def test_skipping_costs_no_random_numbers(root):
    draw = dict(type='mmcmcd.DrawThenFail', reject=['2', '3'])
    kwargs = dict(on_unreadable='skip', max_skip_fraction=0.5)
    state = rng_state()
    try:
        fresh = build(root, draw, **kwargs)
        found_now, after = fresh[2], rng_state()
        set_rng_state(state)
        known_before, again = fresh[2], rng_state()
        set_rng_state(state)
        asked_for = build(root, draw, **kwargs)[4]
    finally:
        set_rng_state(state)
    assert fresh.num_skipped == 2
    for item in (found_now, known_before):
        assert item['pair_id'] == '4'
        assert item['drawn'] == asked_for['drawn']
        assert item['source']['flip'] == asked_for['source']['flip']
    assert after[0] == again[0] and torch.equal(after[2], again[2])
    np.testing.assert_equal(after[1], again[1])


def test_random_numbers_pass_on_from_pair_to_pair(root):
    dataset = build(
        root, dict(type='mmcmcd.DrawThenFail', reject=[]), on_unreadable='skip'
    )
    drawn = [dataset[i]['drawn'] for i in range(NUMBER)]
    assert len(set(drawn)) == NUMBER


# ------------------------------------------------------------------ audit


@pytest.mark.parametrize('case', CASES)
def test_audit_names_it(root, case):
    name, spoil, words = CASES[case]
    dataset = build(root)
    assert audit_pairs(dataset).clean
    spoil(root / name)
    report = audit_pairs(dataset)
    assert not report.clean
    ((kind, (detail,)),) = report.faults.items()
    if 'deleted' in case:  # it looks for the files anew
        assert kind.startswith('no ') and detail == '2'
        return
    assert detail.startswith('2: ')
    words = ['12x8', '14x8'] if 'size' in case else words
    assert all(word in detail for word in words), detail
