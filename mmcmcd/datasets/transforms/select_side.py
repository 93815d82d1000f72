from mmcv.transforms import BaseTransform

from mmcmcd.errors import ConfigError
from mmcmcd.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SelectSide(BaseTransform):
    """Continue with one side of a pair as an ordinary sample.

    What follows is a stock pipeline of single images: contrastive
    pre-training of the teacher on the source, or of a target-only control,
    on the very same lists of pairs.

    Required Keys:

    - <side>

    Modified Keys:

    - all keys of the side move to the top level; the other sides go, labels
      and ids stay

    Args:
        side (str): 'source', 'target' or another side of the data set.
    """

    def __init__(self, side: str) -> None:
        self.side = side

    def transform(self, results: dict) -> dict:
        """Move one side to the top level."""
        sides = results.get('sides', ('source', 'target'))
        if self.side not in sides:
            raise ConfigError(
                f'SelectSide: no side {self.side!r} in pair '
                f'{results.get("pair_id")!r}; it has {sides}.'
            )
        kept = {
            key: value
            for key, value in results.items()
            if key not in sides and key != 'sides'
        }
        return {**kept, **results[self.side]}

    def __repr__(self) -> str:
        return f'{type(self).__name__}(side={self.side!r})'
