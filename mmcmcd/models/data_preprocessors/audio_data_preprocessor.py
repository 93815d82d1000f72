import torch
from mmpretrain.models import ClsDataPreprocessor

from mmcmcd.errors import ConfigError, DatasetError
from mmcmcd.registry import MODELS
from mmcmcd.signal import log_mel, spec_augment
from mmcmcd.signal.log_mel import check_log_mel


@MODELS.register_module()
class AudioDataPreprocessor(ClsDataPreprocessor):
    """mmpretrain's ClsDataPreprocessor for waveforms.

    Computes log-mel spectrograms of the whole batch where the model is, then
    goes on as for images: ``(dB - mean) / std``, batch augmentations, labels.
    It serves a classifier, a side of :class:`PairedDataPreprocessor`, and
    contrastive learning, where ``inputs`` is a list of views. The same values
    as by :class:`LogMel` in the pipeline.

    Args:
        mel (dict): Arguments of :func:`mmcmcd.signal.log_mel`;
            ``sampling_rate`` must be that of ``LoadAudio``.
        mean (float): Of the spectrograms, dB. Defaults to -40 (our choice).
        std (float): Their standard deviation, dB. Defaults to 20.
        spec_augment (dict, optional): Arguments of
            :func:`mmcmcd.signal.spec_augment`, in training only; ``value``
            in dB.
        **kwargs: See :class:`mmpretrain.models.ClsDataPreprocessor`.

    Raises:
        ConfigError: ``mel`` makes no sense.
        DatasetError: Inputs are no waveforms, or of different lengths.

    Example:
        >>> preprocessor = dict(
        ...     type='mmcmcd.AudioDataPreprocessor',
        ...     mel=dict(sampling_rate=16000, n_mels=64))
    """

    def __init__(self, mel, mean=-40.0, std=20.0, spec_augment=None, **kwargs):
        super().__init__(mean=[mean], std=[std], **kwargs)
        if 'sampling_rate' not in mel:
            raise ConfigError(
                'AudioDataPreprocessor: mel needs sampling_rate, that of '
                'LoadAudio, e.g. mel=dict(sampling_rate=16000).'
            )
        defaults = dict(
            n_fft=1024, hop_length=320, n_mels=64, fmin=0.0, fmax=None
        )
        self.mel = {**defaults, **mel}
        check_log_mel(**self.mel)
        self.spec_augment = spec_augment

    def forward(self, data, training=False):
        """Turn waveforms into normalised spectrograms.

        Args:
            data (dict): ``inputs``: (B, C, T), a list of (C, T) of one
                length, or a list of views (B, C, T); and ``data_samples``.
            training (bool): Whether to mask and to augment the batch.

        Returns:
            dict: The same keys; ``inputs`` is (B, C, n_mels, frames), or a
            list of such views.
        """
        inputs = self.cast_data(data['inputs'])
        views = isinstance(inputs, (list, tuple)) and inputs[0].ndim == 3
        if not views:
            inputs = self._spectrograms(_stacked(inputs), training)
            return super().forward({**data, 'inputs': inputs}, training)
        # Batch augmentations mix labels, of which views have none.
        inputs = [
            super(AudioDataPreprocessor, self).forward(
                dict(inputs=self._spectrograms(view, training))
            )['inputs']
            for view in inputs
        ]
        samples = self.cast_data(data.get('data_samples'))
        return dict(inputs=inputs, data_samples=samples)

    def _spectrograms(self, waveforms, training):
        if waveforms.ndim != 3 or not waveforms.is_floating_point():
            raise DatasetError(
                'AudioDataPreprocessor: expected waveforms (B, C, T) as '
                f'floats, got {tuple(waveforms.shape)} of {waveforms.dtype}. '
                'Load them by mmcmcd.LoadAudio; mmcmcd.LogMel must not be in '
                'the pipeline.'
            )
        levels = log_mel(waveforms, **self.mel)
        if training and self.spec_augment:
            levels = torch.stack(
                [spec_augment(level, **self.spec_augment) for level in levels]
            )
        return levels


def _stacked(inputs):
    """A batch of what pseudo_collate left as a list."""
    if isinstance(inputs, torch.Tensor):
        return inputs
    shapes = {tuple(waveform.shape) for waveform in inputs}
    if len(shapes) > 1:
        raise DatasetError(
            'AudioDataPreprocessor: the waveforms of a batch have different '
            f'shapes: {sorted(shapes)}. Cut them to one length by '
            'mmcmcd.AudioSegment.'
        )
    return torch.stack(list(inputs))
