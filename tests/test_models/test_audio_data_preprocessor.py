"""Waveforms in, normalised spectrograms out."""

import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmpretrain.datasets.transforms import PackInputs
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample

from mmcmcd.datasets.transforms import LogMel
from mmcmcd.errors import ConfigError, DatasetError
from mmcmcd.registry import MODELS

pytest.importorskip('librosa')
MEL = dict(sampling_rate=8000, n_fft=256, hop_length=80, n_mels=32)


def waveforms(batch=3, channels=1, length=2000):
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(batch, channels, length, generator=generator)


def build(**kwargs):
    cfg = dict(type='mmcmcd.AudioDataPreprocessor', mel=MEL)
    return MODELS.build({**cfg, **kwargs})


def in_the_pipeline(batch, mean=-40.0, std=20.0):
    """LogMel in the workers, then the stock preprocessor."""
    packed = [
        PackInputs()(LogMel(**MEL)(dict(img=w, rate=8000.0))) for w in batch
    ]
    return ClsDataPreprocessor([mean], [std])(default_collate(packed))


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
@pytest.mark.parametrize('channels', [1, 2])
def test_same_as_log_mel_in_the_pipeline(collate, channels):
    batch = waveforms(channels=channels)
    samples = [
        dict(inputs=w, data_samples=DataSample().set_gt_label(i))
        for i, w in enumerate(batch)
    ]
    found = build(mean=-30.0, std=15.0)(collate(samples))
    expected = in_the_pipeline(batch, -30.0, 15.0)['inputs']
    assert found['inputs'].shape == (3, channels, 32, 26)
    torch.testing.assert_close(found['inputs'], expected, rtol=0, atol=1e-5)
    labels = [sample.gt_label.item() for sample in found['data_samples']]
    assert labels == [0, 1, 2]


@pytest.mark.parametrize('training', [True, False])
def test_views_of_contrastive_learning(training):
    views = [waveforms(), 2 * waveforms()]
    found = build()(
        dict(inputs=views, data_samples=[DataSample()] * 3), training
    )
    assert len(found['inputs']) == 2 and len(found['data_samples']) == 3
    for view, spectrograms in zip(views, found['inputs'], strict=True):
        expected = build()(dict(inputs=view))['inputs']
        assert torch.equal(spectrograms, expected)


def test_side_of_a_pair():
    paired = MODELS.build(
        dict(
            type='mmcmcd.PairedDataPreprocessor',
            source=dict(mean=[10.0], std=[2.0]),
            target=dict(type='mmcmcd.AudioDataPreprocessor', mel=MEL),
        )
    )
    images = torch.full((3, 1, 8, 8), 12.0)
    found = paired(dict(inputs=dict(source=images, target=waveforms())))
    assert torch.equal(found['inputs']['source'], torch.ones(3, 1, 8, 8))
    expected = in_the_pipeline(waveforms())['inputs']
    torch.testing.assert_close(found['inputs']['target'], expected)


def test_stock_classifier_learns_on_waveforms():
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            data_preprocessor=dict(
                type='mmcmcd.AudioDataPreprocessor',
                mel=MEL,
                num_classes=3,
                batch_augments=dict(augments=dict(type='Mixup', alpha=0.8)),
            ),
            backbone=dict(
                type='ResNet',
                depth=18,
                in_channels=1,
                stem_channels=8,
                base_channels=8,
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead',
                num_classes=3,
                in_channels=64,
                loss=dict(type='CrossEntropyLoss', use_soft=True),
            ),
        )
    )
    data = dict(
        inputs=waveforms(),
        data_samples=[DataSample().set_gt_label(i) for i in range(3)],
    )
    batch = model.data_preprocessor(data, True)
    loss = model(**batch, mode='loss')['loss']
    loss.backward()
    assert loss.isfinite()
    # Mixup mixed the labels, and hence the spectrograms.
    scores = torch.stack([s.gt_score for s in batch['data_samples']])
    assert ((scores > 0) & (scores < 1)).any()


def test_masks_in_training_alone():
    masked = build(spec_augment=dict(freq_mask=32, time_mask=0, value=-40.0))
    plain = build()(dict(inputs=waveforms()))['inputs']
    assert torch.equal(masked(dict(inputs=waveforms()))['inputs'], plain)
    trained = masked(dict(inputs=waveforms(20)), True)['inputs']
    # Of different widths for different clips.
    widths = (trained == 0).all(dim=3).sum(dim=2)
    assert len(widths.unique()) > 5


def test_mixed_precision_leaves_the_spectrogram_alone():
    expected = build()(dict(inputs=waveforms()))['inputs']
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = build()(dict(inputs=waveforms()))['inputs']
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_same_on_the_gpu():
    found = build().cuda()(dict(inputs=waveforms()))['inputs']
    assert found.is_cuda
    expected = in_the_pipeline(waveforms())['inputs']
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)


def test_wrong_inputs():
    unequal = [torch.zeros(1, 100), torch.zeros(1, 200)]
    with pytest.raises(DatasetError, match=r'mmcmcd\.AudioSegment'):
        build()(dict(inputs=unequal))
    with pytest.raises(DatasetError, match='LogMel must not be'):
        build()(dict(inputs=torch.zeros(2, 1, 32, 26)))
    with pytest.raises(DatasetError, match='of torch.uint8'):
        build()(dict(inputs=torch.zeros(2, 1, 99, dtype=torch.uint8)))


def test_wrong_arguments():
    with pytest.raises(ConfigError, match='mel needs sampling_rate'):
        build(mel=dict(n_mels=3))
    with pytest.raises(ConfigError, match='n_mels must be a positive'):
        build(mel=dict(sampling_rate=8000, n_mels=0))
