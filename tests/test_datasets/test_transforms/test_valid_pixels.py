"""What is known of a depth map's holes reaches the data samples."""

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.registry import init_default_scope

from mmcmcd.errors import DatasetError
from mmcmcd.registry import TRANSFORMS

FILL = dict(type='mmcmcd.FillDepth')
NORMALIZE = dict(type='mmcmcd.NormalizeDepth')
ENCODINGS = [
    [NORMALIZE],
    [dict(NORMALIZE, mode='robust'), dict(type='mmcmcd.RepeatChannels')],
    [dict(type='mmcmcd.DepthToDisparity')],
    [dict(type='mmcmcd.DepthToHHA', fov=60)],
    [FILL],
    [FILL, NORMALIZE],
    [dict(type='mmcmcd.DepthToDisparity'), NORMALIZE],
]


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')


def pipeline(*cfgs):
    return Compose([TRANSFORMS.build(cfg) for cfg in cfgs])


def on_target(*transforms):
    return dict(type='mmcmcd.OnSide', sides='target', transforms=[*transforms])


def make_pair(height=12, width=16):
    """A pair whose target has holes, and is its valid pixels times 5 m."""
    rng = np.random.default_rng(0)
    measured = rng.random((height, width)) > 0.3
    depth = measured * rng.uniform(1, 5, (height, width))
    source = np.repeat(measured[..., None], 3, axis=2) * 255
    shape = (height, width)
    return dict(
        pair_id='p',
        source=dict(img=source.astype(np.uint8), img_shape=shape),
        target=dict(
            img=depth.astype(np.float32), img_shape=shape, modality='depth'
        ),
    )


def valid_of(packed):
    mask = packed['data_samples'].target_valid.data
    assert mask.shape == (1, *packed['inputs']['target'].shape[1:])
    return mask[0].numpy()


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_every_encoding_tells_which_pixels_were_measured(encoding):
    pair = make_pair()
    measured = pair['target']['img'] > 0
    packed = pipeline(
        on_target(*encoding), dict(type='mmcmcd.PackPairedInputs')
    )(pair)
    assert np.array_equal(valid_of(packed), measured)
    assert 'source_valid' not in packed['data_samples']


def test_normals_are_valid_where_there_is_one():
    packed = pipeline(
        on_target(dict(type='mmcmcd.DepthToNormals', fov=60)),
        dict(type='mmcmcd.PackPairedInputs'),
    )(make_pair())
    has_normal = packed['inputs']['target'].norm(dim=0) > 0.5
    assert np.array_equal(valid_of(packed), has_normal.numpy())
    assert has_normal.any() and not has_normal.all()


@pytest.mark.parametrize('early', [[], [FILL]])
@pytest.mark.parametrize('seed', range(4))
def test_geometry_moves_them_with_the_image(early, seed):
    """Also those of a map that was filled before it was cropped."""
    np.random.seed(seed)
    packed = pipeline(
        on_target(*early),
        dict(
            type='mmcmcd.SharedGeometry',
            interpolation='nearest',
            transforms=[
                dict(type='RandomResizedCrop', scale=(9, 14)),
                dict(type='RandomFlip', prob=0.5),
                dict(type='Pad', size=(16, 12)),
            ],
        ),
        on_target(NORMALIZE),
        dict(type='mmcmcd.PackPairedInputs'),
    )(make_pair())
    measured = packed['inputs']['source'][0].numpy() > 0
    assert np.array_equal(valid_of(packed), measured)
    assert measured.any() and not measured.all()


def test_no_side_knows_without_depth():
    packed = pipeline(dict(type='mmcmcd.PackPairedInputs'))(make_pair())
    assert 'target_valid' not in packed['data_samples']


def test_geometry_that_they_do_not_follow_is_told():
    resize = dict(
        type='Resize', scale=(8, 6), interpolation='nearest', backend='cv2'
    )
    pack = dict(type='mmcmcd.PackPairedInputs')
    for steps in ((NORMALIZE, resize), (FILL, resize, NORMALIZE)):
        # Without a pair to compare, nobody asks for them.
        pipeline(on_target(*steps))(make_pair())
        with pytest.raises(
            DatasetError, match="side 'target' are 16x12.*8x6.*SharedGeometry"
        ):
            pipeline(on_target(*steps), pack)(make_pair())
