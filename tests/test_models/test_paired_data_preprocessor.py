import pytest
import torch

from mmcmcd.errors import ConfigError
from mmcmcd.models import PairedDataPreprocessor

IMAGES = dict(mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 2.0])


def batch(series):
    images = torch.ones(len(series), 3, 4, 4)
    return dict(inputs=dict(source=images, target=series))


def test_arrays_pass_as_they_are():
    preprocessor = PairedDataPreprocessor(source=IMAGES, target=dict())
    for shape in ((2, 6, 9), (2, 1, 5, 4, 4)):
        series = torch.randn(shape)
        out = preprocessor(batch(series))['inputs']
        assert torch.equal(out['target'], series)
        assert out['source'][0, :, 0, 0].tolist() == [0.0, -0.5, -1.0]


@pytest.mark.parametrize('series', [torch.ones(3, 3, 9), [torch.ones(3, 9)]])
def test_a_series_is_not_normalised_along_a_wrong_axis(series):
    preprocessor = PairedDataPreprocessor(source=IMAGES, target=IMAGES)
    with pytest.raises(ConfigError, match=r'target has mean .*NormalizeArray'):
        preprocessor(batch(series))
