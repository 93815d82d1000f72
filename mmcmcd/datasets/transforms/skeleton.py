from mmcv.transforms import BaseTransform

from mmcmcd.errors import ConfigError
from mmcmcd.registry import TRANSFORMS

from .arrays import replace_array, timed_array_of


@TRANSFORMS.register_module()
class CenterSkeleton(BaseTransform):
    """Move a skeleton so that one joint begins at the origin.

    Where a person stands says nothing about what they do; how they move from
    there does, hence one offset for the whole clip.

    Required Keys:

    - img (float tensor, (num_joints * D, T): joint by joint)

    Modified Keys:

    - img

    Args:
        joint (int): Index of the joint, for example the hip's centre.
        num_joints (int): Number of joints.

    Raises:
        ConfigError: There is no such joint, or the channels are not those of
            so many joints.
    """

    def __init__(self, joint: int, num_joints: int) -> None:
        if not 0 <= joint < num_joints:
            raise ConfigError(
                f'CenterSkeleton: joint={joint} must be 0 to '
                f'{num_joints - 1} (num_joints={num_joints}).'
            )
        self.joint = joint
        self.num_joints = num_joints

    def transform(self, results: dict) -> dict:
        """Subtract the joint's first position from all joints."""
        series = timed_array_of(results, self)
        if series.ndim != 2 or series.shape[0] % self.num_joints:
            raise ConfigError(
                f'CenterSkeleton: {self.num_joints} joints need a series '
                f'({self.num_joints} * D, T), got shape '
                f'{tuple(series.shape)}. Load it with '
                "dict(type='mmcmcd.LoadArray', axes='TVC')."
            )
        joints = series.unflatten(0, (self.num_joints, -1))
        origin = joints[self.joint, :, :1]
        return replace_array(results, (joints - origin).flatten(0, 1))

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(joint={self.joint}, '
            f'num_joints={self.num_joints})'
        )
