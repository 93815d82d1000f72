import numpy as np
import pytest
import torch

from mmcmcd.datasets.transforms.skeleton import CenterSkeleton
from mmcmcd.errors import ConfigError


def test_the_joint_begins_at_the_origin_and_movement_stays():
    joints = torch.randn(4, 3, 7)  # joints, xyz, time
    out = CenterSkeleton(2, 4)(dict(img=joints.flatten(0, 1)))['img']
    out = out.view(4, 3, 7)
    assert (out[2, :, 0] == 0).all()
    for j in range(4):
        for t in range(7):
            torch.testing.assert_close(
                out[j, :, t], joints[j, :, t] - joints[2, :, 0]
            )


def test_the_place_of_the_person_does_not_matter():
    joints = torch.randn(4, 3, 7)
    moved = joints + torch.tensor([1.0, -2.0, 3.0])[:, None]
    center = CenterSkeleton(0, 4)
    torch.testing.assert_close(
        center(dict(img=joints.flatten(0, 1)))['img'],
        center(dict(img=moved.flatten(0, 1)))['img'],
    )


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match='joint=4 must be 0 to 3'):
        CenterSkeleton(4, 4)
    with pytest.raises(ConfigError, match='4 joints'):
        CenterSkeleton(0, 4)(dict(img=torch.zeros(13, 5)))
    with pytest.raises(ConfigError, match='CenterSkeleton.*got ndarray'):
        CenterSkeleton(0, 4)(dict(img=np.zeros((12, 5))))
