"""Packing of a pair for the data preprocessor."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample

from mmcmcd.errors import DatasetError
from mmcmcd.registry import TRANSFORMS

_PAIR_KEYS = ('pair_id', 'group_id', 'group_index', 'sample_idx')


def image_to_tensor(img):
    """Turn an (H, W) or (H, W, C) array into a (C, H, W) tensor.

    At most one copy.  uint8 and float32 are kept, anything else becomes
    float32 (torch has little arithmetic for uint16).

    Args:
        img (np.ndarray | torch.Tensor): A tensor is passed on as it is.

    Returns:
        torch.Tensor: Contiguous, (C, H, W).
    """
    if isinstance(img, torch.Tensor):
        return img.contiguous()
    if img.dtype not in (np.uint8, np.float32):
        img = img.astype(np.float32)
    if img.ndim == 2:
        return torch.from_numpy(np.ascontiguousarray(img))[None]
    if any(stride < 0 for stride in img.strides):  # a flipped view
        return torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1)))
    return torch.from_numpy(img).permute(2, 0, 1).contiguous()


def _pack_mask(valid, image, side):
    if valid.shape != image.shape[-2:]:
        height, width = image.shape[-2:]
        raise DatasetError(
            f'PackPairedInputs: the valid pixels of side {side!r} are '
            f'{valid.shape[1]}x{valid.shape[0]}, its image {width}x{height}. '
            'After FillDepth, change geometry by mmcmcd.SharedGeometry alone, '
            'which moves them, too; after NormalizeDepth and the other '
            'encodings of depth, not at all.'
        )
    return PixelData(data=torch.from_numpy(np.ascontiguousarray(valid))[None])


@TRANSFORMS.register_module()
class PackPairedInputs(BaseTransform):
    """Pack the sides of a pair and what is known about it.

    Required Keys:

    - <side>.img for every side in ``sides``
    - sides (optional, tuple, default ('source', 'target'))
    - pair_id, group_id, group_index, sample_idx (optional)
    - <side>.img_path (optional)
    - <side>.valid (optional, bool, (H, W)), which pixels of the image hold a
      measurement
    - gt_label (optional)
    - gt_seg_map (optional, (H, W))

    Deleted Keys:

    - everything else

    Added Keys:

    - inputs (dict[str, torch.Tensor]): Side name to (C, H, W), contiguous.
    - data_samples (:obj:`mmpretrain.structures.DataSample`): Metainfo
      ``pair_id``, ``group_id``, ``group_index``, ``sample_idx``,
      ``<side>_path``, ``img_shape`` (H, W of the first side) and
      ``meta_keys``; fields ``gt_label`` and ``gt_sem_seg``
      (:obj:`PixelData`, data (1, H, W) int64) and ``<side>_valid``
      (:obj:`PixelData`, data (1, H, W) bool) where known.

    Args:
        meta_keys (Sequence[str]): Further top-level keys to keep as
            metainfo; those that a sample lacks are left out.

    Raises:
        DatasetError: A side was not loaded, or its valid pixels are of
            another size.
    """

    def __init__(self, meta_keys=()):
        self.meta_keys = tuple(meta_keys)

    def transform(self, results):
        """Pack ``results``."""
        sides = results.get('sides', ('source', 'target'))
        inputs, valid = {}, {}
        meta = {
            key: results[key]
            for key in _PAIR_KEYS + self.meta_keys
            if key in results
        }
        for side in sides:
            item = results.get(side) or {}
            if 'img' not in item:
                raise DatasetError(
                    f'PackPairedInputs: side {side!r} of pair '
                    f'{results.get("pair_id")!r} has no image; load it with '
                    f"dict(type='mmcmcd.OnSide', sides={side!r}, "
                    'transforms=[...]).'
                )
            inputs[side] = image_to_tensor(item['img'])
            if 'img_path' in item:
                meta[f'{side}_path'] = item['img_path']
            if 'valid' in item:
                valid[side] = _pack_mask(item['valid'], inputs[side], side)
        meta['img_shape'] = tuple(inputs[sides[0]].shape[-2:])
        return dict(
            inputs=inputs,
            data_samples=self._data_sample(results, meta, valid),
        )

    @staticmethod
    def _data_sample(results, meta, valid):
        sample = DataSample(metainfo=meta)
        for side, mask in valid.items():
            sample.set_field(mask, f'{side}_valid', dtype=PixelData)
        if results.get('gt_label') is not None:
            sample.set_gt_label(results['gt_label'])
        if results.get('gt_seg_map') is not None:
            seg = np.ascontiguousarray(results['gt_seg_map'], dtype=np.int64)
            sample.gt_sem_seg = PixelData(data=torch.from_numpy(seg)[None])
        return sample

    def __repr__(self):
        return f'{self.__class__.__name__}(meta_keys={self.meta_keys})'
