import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate

from mmcmcd.datasets.transforms import PackPairedInputs
from mmcmcd.datasets.transforms.formatting import image_to_tensor
from mmcmcd.errors import DatasetError

IMG = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    'img',
    [IMG, IMG[:, ::-1], IMG[::-1, ::-1], IMG[1:4, 2:7], cv2.flip(IMG, 1)],
    ids=['plain', 'flip', 'diagonal', 'crop', 'copy'],
)
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_images(img, dtype):
    img = img.astype(dtype) if dtype is np.float32 else img
    tensor = image_to_tensor(img)
    assert tensor.is_contiguous()
    assert tensor.dtype == getattr(torch, np.dtype(dtype).name)
    np.testing.assert_array_equal(
        tensor.numpy(), np.array(img).transpose(2, 0, 1)
    )


def test_maps_and_other_types():
    depth = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::-1]
    tensor = image_to_tensor(depth)
    assert tensor.shape == (1, 3, 4)
    np.testing.assert_array_equal(tensor[0].numpy(), depth)
    wide = image_to_tensor(np.full((3, 4), 60000, np.uint16))
    assert wide.dtype == torch.float32
    assert wide.max() == 60000
    assert image_to_tensor(np.zeros((3, 4), float)).dtype == torch.float32
    ready = torch.rand(2, 3, 4)
    assert image_to_tensor(ready) is ready


def make(**kwargs):
    return dict(
        pair_id='a',
        group_id='g',
        group_index=4,
        sample_idx=2,
        source=dict(img=IMG, img_path='s/a.jpg', flip=True),
        target=dict(img=np.ones((6, 8), np.float32), img_path='t/a.png'),
        **kwargs,
    )


def test_pack():
    packed = PackPairedInputs()(make())
    assert set(packed) == {'inputs', 'data_samples'}
    assert list(packed['inputs']) == ['source', 'target']
    sample = packed['data_samples']
    assert sample.metainfo == dict(
        pair_id='a',
        group_id='g',
        group_index=4,
        sample_idx=2,
        source_path='s/a.jpg',
        target_path='t/a.png',
        img_shape=(6, 8),
    )
    assert 'gt_label' not in sample
    assert 'gt_sem_seg' not in sample


def test_pack_labels_and_meta_keys():
    seg = np.arange(48, dtype=np.uint8).reshape(6, 8)[:, ::-1]
    results = make(gt_label=3, gt_seg_map=seg, scene='kitchen', other=1)
    packed = PackPairedInputs(meta_keys=('scene', 'absent'))(results)
    sample = packed['data_samples']
    assert sample.gt_label.tolist() == [3]
    assert sample.scene == 'kitchen'
    assert 'other' not in sample.metainfo
    assert 'absent' not in sample.metainfo
    assert sample.gt_sem_seg.data.dtype == torch.int64
    np.testing.assert_array_equal(sample.gt_sem_seg.data[0].numpy(), seg)


def test_three_sides_and_collate():
    results = make(sides=('source', 'target', 'audio'))
    results['audio'] = dict(img=torch.rand(1, 4, 5))
    batch = default_collate([PackPairedInputs()(results)] * 3)
    shapes = {k: tuple(v.shape) for k, v in batch['inputs'].items()}
    assert shapes == dict(
        source=(3, 3, 6, 8), target=(3, 1, 6, 8), audio=(3, 1, 4, 5)
    )
    assert len(batch['data_samples']) == 3


def test_side_not_loaded():
    results = make()
    del results['target']['img']
    with pytest.raises(DatasetError, match="'target' of pair 'a' has no"):
        PackPairedInputs()(results)
