from mmengine.model import BaseDataPreprocessor
from torch import nn

from mmcmcd.errors import ConfigError, DatasetError
from mmcmcd.registry import MODELS

from .audio_data_preprocessor import AudioDataPreprocessor


@MODELS.register_module()
class PairedDataPreprocessor(BaseDataPreprocessor):
    """One stock data preprocessor per side of a pair, found by name.

    Args:
        **sides (dict): For each side the config of a stock preprocessor of
            single images; its ``type`` defaults to
            ``'mmpretrain.ClsDataPreprocessor'``. Or a built one.

    Example:
        >>> preprocessor = dict(
        ...     type='mmcmcd.PairedDataPreprocessor',
        ...     source=dict(mean=[123.675, 116.28, 103.53],
        ...                 std=[58.395, 57.12, 57.375], to_rgb=True),
        ...     target=dict(mean=[0.5], std=[0.25]))
    """

    def __init__(self, **sides: dict) -> None:
        super().__init__()
        if not sides:
            raise ConfigError(
                'PairedDataPreprocessor needs one config per side, for '
                'example source=dict(mean=..., std=..., to_rgb=True) and '
                'target=dict(mean=[0.5], std=[0.25]).'
            )
        self.sides = tuple(sides)
        for side, cfg in sides.items():
            if not isinstance(cfg, nn.Module):
                cfg = {'type': 'mmpretrain.ClsDataPreprocessor', **cfg}
                cfg = MODELS.build(cfg)
            self.add_module(side, cfg)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Move a batch to the device and normalise each side.

        Args:
            data (dict): ``inputs``, a dict of side to images (B, C, H, W) or
                a list of (C, H, W), and ``data_samples``.
            training (bool): Passed on to the sides' preprocessors.

        Returns:
            dict: The same keys; images are float tensors (B, C, H, W).

        Raises:
            ConfigError: A side has mean and std, but no images.
            DatasetError: A side is missing in the batch.
        """
        missing = [s for s in self.sides if s not in data['inputs']]
        if missing:
            raise DatasetError(
                f'The batch lacks side(s) {missing}; it has '
                f'{sorted(data["inputs"])}. The sides of the data set, of '
                'PackPairedInputs and of PairedDataPreprocessor must agree.'
            )
        # Casting the samples here alone keeps one device copy of them.
        samples = self.cast_data(data.get('data_samples'))
        for side in self.sides:
            self._check_layout(side, data['inputs'][side])
        inputs = {
            side: self._prepare(side, data['inputs'][side], training)
            for side in self.sides
        }
        return dict(inputs=inputs, data_samples=samples)

    def _prepare(self, side, inputs, training):
        return getattr(self, side)(dict(inputs=inputs), training)['inputs']

    def _check_layout(self, side: str, inputs) -> None:
        """Refuse to normalise series and clips along a wrong axis."""
        preprocessor = getattr(self, side)
        mean = getattr(preprocessor, 'mean', None)
        if mean is None or inputs[0].ndim == mean.ndim:
            return
        if isinstance(preprocessor, AudioDataPreprocessor):
            return  # it makes images of them
        raise ConfigError(
            f'data_preprocessor.{side} has mean and std, which are for images '
            f'(B, C, H, W), but its inputs are arrays of shape (B, '
            f'{", ".join(map(str, inputs[0].shape))}). Leave mean and std '
            'out, and normalise by mmcmcd.NormalizeArray in the pipeline.'
        )
