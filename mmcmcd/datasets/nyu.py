from mmcmcd.registry import DATASETS

from .paired_dataset import PairedModalityDataset

NYU_HOWTO = (
    'Get nyu_depth_v2_labeled.mat (2.8 GB) from the page "NYU Depth Dataset '
    'V2" of Nathan Silberman and Rob Fergus and convert it: '
    'python tools/dataset_converters/nyu_depth_v2.py '
    '--mat nyu_depth_v2_labeled.mat --out data/nyu_depth_v2 '
    '(run it again if it was interrupted: it resumes). '
    '`make demo` needs no data at all.'
)


@DATASETS.register_module()
class NYURGBDPairs(PairedModalityDataset):
    """RGB (source) and depth (target) frames of NYU-Depth V2.

    Folders as ``tools/dataset_converters/nyu_depth_v2.py`` writes them:
    ``rgb/NNNN.jpg`` (or png), ``depth/NNNN.png`` (16 bit, millimetres),
    ``splits/{train,test}.txt``. ``seg_map=dict(folder='label40',
    suffix='.png')`` adds the labels.

    See :class:`PairedModalityDataset` for the arguments.
    """

    METAINFO = dict(dataset_type='nyu_depth_v2')
    SIDES = dict(
        source=dict(folder='rgb', suffix=('.jpg', '.png')),
        target=dict(folder='depth', suffix='.png'),
    )
    HOWTO = NYU_HOWTO
