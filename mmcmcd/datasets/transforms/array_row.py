"""One entry of an array that holds a whole data set."""

from mmcv.transforms import BaseTransform

from mmcmcd.errors import UnreadableFileError
from mmcmcd.registry import TRANSFORMS

from ..archives import read_array, split_archive_path


@TRANSFORMS.register_module()
class LoadArrayRow(BaseTransform):
    """Load one image out of an array of images in an archive.

    For sets such as MNIST, whose images are the rows of one array. The array
    that was read last stays in memory: it should be small.

    Required Keys:

    - img_path (an array in an archive and a position on its first axis, e.g.
      'data/mnist.npz/images/1234')

    Added Keys:

    - img (np.ndarray, (H, W[, C]), as stored)
    - img_shape
    - ori_shape

    Raises:
        UnreadableFileError: The archive or the array is missing or damaged,
            the array holds no images, or has no such row.
    """

    def __init__(self):
        self._path = None
        self._rows = None

    def transform(self, results):
        """Load the row that ``results['img_path']`` names."""
        path, _, index = results['img_path'].rpartition('/')
        if path != self._path:
            self._rows = read_array(*split_archive_path(path))
            self._path = path
        shape = self._rows.shape
        if len(shape) not in (3, 4):
            raise UnreadableFileError(
                f'{path} has shape {shape}; expected images, (N, H, W) or '
                '(N, H, W, C).'
            )
        if not index.isdecimal() or int(index) >= shape[0]:
            raise UnreadableFileError(
                f'{path} has {shape[0]} rows, but row {index} is asked for. '
                'Restore the archive that the data set was made with.'
            )
        # A copy: transforms may write into their image.
        img = self._rows[int(index)].copy()
        results['img'] = img
        results['img_shape'] = img.shape[:2]
        results['ori_shape'] = img.shape[:2]
        return results

    def __repr__(self):
        return f'{type(self).__name__}()'
