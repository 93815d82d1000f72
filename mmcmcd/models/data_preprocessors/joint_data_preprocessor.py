from mmengine.structures import BaseDataElement
from torch import nn

from mmcmcd.errors import ConfigError

from .paired_data_preprocessor import PairedDataPreprocessor

# What a stock preprocessor does to a training batch beyond normalisation.
_MIXING = ('batch_augments', 'to_onehot', 'spec_augment')


class JointDataPreprocessor(PairedDataPreprocessor):
    """Prepare pairs for a distiller, and plain batches for its student.

    A whole stock model normalises its inputs itself; here the targets of
    pairs go through the same module, so that both see one kind of input.
    Pairs keep their size and are not mixed with one another, or they would
    not match their sources and labels.

    Args:
        target (nn.Module): The student's own data preprocessor.
        **sides (dict): Of the other sides, as in
            :class:`PairedDataPreprocessor`.

    Raises:
        ConfigError: ``target`` mixes, masks or relabels training batches.
    """

    def __init__(self, target: nn.Module, **sides: dict) -> None:
        super().__init__(**sides, target=target)
        for key in _MIXING:
            if getattr(target, key, None):
                raise ConfigError(
                    f'model.student.data_preprocessor.{key} changes training '
                    'batches, which pairs and their labels do not survive. '
                    'Leave it out (of model.student.train_cfg.augments, too), '
                    'and augment in the pipeline.'
                )

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch of pairs, or one of the target alone.

        Args:
            data (dict): See :class:`PairedDataPreprocessor`, or what the
                student's own preprocessor takes.
            training (bool): Passed on, but for the target of pairs.

        Returns:
            dict: ``inputs`` and ``data_samples``.
        """
        if isinstance(data['inputs'], dict):
            return super().forward(data, training)
        return self.target(data, training)

    def _prepare(self, side, inputs, training):
        if side != 'target':
            return super()._prepare(side, inputs, training)
        blank = [BaseDataElement() for _ in inputs]
        data = dict(inputs=inputs, data_samples=blank)
        images = self.target(data, False)['inputs']
        given, found = (tuple(i[0].shape) for i in (inputs, images))
        if len(given) == 3 and len(found) == 3 and given != found:
            raise ConfigError(
                f'model.student.data_preprocessor makes {found} of targets '
                f'(C, H, W) of {given}: padding would move them against '
                'their sources. Crop pairs to a size that it leaves alone.'
            )
        return images
