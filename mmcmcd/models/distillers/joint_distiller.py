"""Distil the backbone of a model that also learns its own task."""

import copy

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.data_preprocessors import JointDataPreprocessor
from mmcmcd.registry import MODELS

from .cross_modal_distiller import CrossModalDistiller


@MODELS.register_module()
class JointDistiller(CrossModalDistiller):
    """Distil a whole stock model of the target while it learns its task.

    The student is a segmentor of mmseg or a classifier of mmpretrain. Its
    backbone is distilled with all pairs of a batch, as by
    :class:`CrossModalDistiller`; its own losses see those pairs that have
    labels, in one further forward pass through the model's own ``loss``.
    Batches that mix both come from :class:`MultiSourceSampler`. Plain
    batches, of the target alone, are validated and tested as the student by
    itself would, with its own preprocessing.

    Args:
        student (dict): Config of a whole model with a ``backbone``, as it
            stands in the config of its task. A prefix of its ``type``, such
            as ``'mmseg.EncoderDecoder'``, is the scope of its parts, too.
        task_weight (float): Factor of the student's own losses, which are
            logged under their names behind ``task.``. Defaults to 1.
        data_preprocessor (dict, optional): Config of a
            :class:`PairedDataPreprocessor` of the source alone: targets go
            through the student's own preprocessor.
        **kwargs: See :class:`CrossModalDistiller`.

    Raises:
        ConfigError: The student is no whole model, ``task_weight`` is
            negative, or ``data_preprocessor`` is about the target.

    Example:
        >>> model = dict(
        ...     type='mmcmcd.JointDistiller',
        ...     student=dict(type='mmseg.EncoderDecoder',
        ...                  data_preprocessor=..., backbone=...,
        ...                  decode_head=...),
        ...     teacher=..., losses=...)
    """

    def __init__(
        self,
        student: dict,
        task_weight: float = 1.0,
        data_preprocessor: dict | None = None,
        **kwargs,
    ) -> None:
        if not task_weight >= 0:
            raise ConfigError(
                f'model.task_weight={task_weight} must not be negative: it '
                "is the factor of the student's own losses."
            )
        super().__init__(student=student, **kwargs)
        self.task_weight = task_weight
        self.data_preprocessor = _preprocessor_of(
            data_preprocessor, self.student
        )

    @property
    def student_backbone(self) -> nn.Module:
        """What is distilled: the student's backbone."""
        return self.student.backbone

    def _build_student(self, cfg):
        student = MODELS.build(_in_own_scope(cfg))
        if not isinstance(student, BaseModel) or not hasattr(
            student, 'backbone'
        ):
            raise ConfigError(
                f'model.student is a {type(student).__name__}, but '
                'JointDistiller trains a whole model with a backbone: give '
                'the model of a segmentation or classification config, such '
                "as student=dict(type='mmseg.EncoderDecoder', backbone=..., "
                'decode_head=...). mmcmcd.CrossModalDistiller takes a '
                'backbone alone.'
            )
        return student

    def forward(self, inputs, data_samples=None, mode='tensor'):
        """Run one of the three modes of OpenMMLab models.

        Args:
            inputs (dict[str, Tensor] | Tensor): Images per side, each
                (B, C, H, W), as in :class:`CrossModalDistiller`; plain
                images are the target's, and the student's alone.
            data_samples (list[DataSample], optional): Their meta data.
            mode (str): ``'loss'``, ``'tensor'`` or ``'predict'``.
        """
        if isinstance(inputs, Tensor) and mode in ('tensor', 'predict'):
            return self.student(inputs, data_samples, mode)
        return super().forward(inputs, data_samples, mode)

    def loss(self, inputs: dict[str, Tensor], data_samples: list) -> dict:
        """Sum what all pairs say of the backbone, and labels of the task.

        Args:
            inputs (dict[str, Tensor]): ``source`` and ``target`` images,
                each (B, C, H, W).
            data_samples (list[DataSample]): Those of labelled pairs have
                ``gt_sem_seg`` or ``gt_label``.

        Returns:
            dict[str, Tensor]: Those of :class:`CrossModalDistiller`, the
            student's own behind ``task.``, and ``task.labelled``, the number
            of pairs with labels.

        Raises:
            ConfigError: No pair of the batch has a label.
        """
        results = super().loss(inputs, data_samples)
        labelled = self._require_labelled(data_samples)
        task = self.student.loss(
            inputs['target'][labelled],
            [self._to_task_sample(data_samples[i]) for i in labelled],
        )
        results['task.labelled'] = inputs['target'].new_tensor(
            float(len(labelled))
        )
        for key, value in task.items():
            weight = self.task_weight if 'loss' in key else 1
            results[f'task.{key}'] = _scale(value, weight)
        return results

    def predict(self, inputs: dict[str, Tensor], data_samples: list) -> list:
        """Embed both sides of each pair, and do the student's task.

        Returns:
            list[DataSample]: The samples of :class:`CrossModalDistiller`,
            with what the student predicts of the target set besides.
        """
        samples = super().predict(inputs, data_samples)
        predictions = self.student.predict(inputs['target'])
        for sample, prediction in zip(samples, predictions, strict=True):
            for field, value in prediction.items():
                sample.set_field(value, field)
        return samples

    @property
    def _label_field(self):
        is_segmentor = hasattr(self.student, 'decode_head')
        return 'gt_sem_seg' if is_segmentor else 'gt_label'

    def _require_labelled(self, data_samples):
        """Which pairs have labels, as indices."""
        field = self._label_field
        labelled = [i for i, s in enumerate(data_samples) if field in s]
        if labelled:
            return labelled
        # Not a loss of zero: a process without it would leave the others
        # waiting for the gradients of the head.
        cause = (
            'seg_map=dict(folder=..., suffix=...) of the data set, and '
            "dict(type='mmseg.LoadAnnotations') in its pipeline"
            if field == 'gt_sem_seg'
            else 'a column label in its ann_file'
        )
        raise ConfigError(
            f'A batch of {len(data_samples)} pairs has none with {field}, '
            f'which {type(self.student).__name__} learns from. Give labelled '
            f'pairs their labels ({cause}), and every batch some of them: '
            "train_dataloader.sampler=dict(type='mmcmcd.MultiSourceSampler', "
            'batch_size=<train_dataloader.batch_size>, source_ratio=(1, 7)) '
            'over a ConcatDataset of labelled and unlabelled pairs.'
        )

    def _to_task_sample(self, sample):
        """A labelled pair as the student's own data set would give it."""
        if self._label_field == 'gt_label':
            return sample
        from mmseg.structures import SegDataSample

        size = tuple(sample.gt_sem_seg.shape[-2:])
        metainfo = dict(
            sample.metainfo, ori_shape=size, img_shape=size, pad_shape=size
        )
        return SegDataSample(metainfo=metainfo, gt_sem_seg=sample.gt_sem_seg)


def _in_own_scope(cfg):
    """Let the parts of a prefixed type be looked for beside it.

    mmengine takes the prefix for the type alone.
    """
    cfg = copy.deepcopy(cfg)
    scope, dot, _ = str(cfg.get('type')).partition('.')
    if dot and isinstance(cfg['type'], str):
        cfg.setdefault('_scope_', scope)
    return cfg


def _preprocessor_of(cfg, student):
    """Build a preprocessor whose target is the student's own."""
    sides = {key: side for key, side in (cfg or {}).items() if side}
    kind = str(sides.pop('type', 'PairedDataPreprocessor'))
    if not kind.endswith('PairedDataPreprocessor') or 'target' in sides:
        raise ConfigError(
            'model.data_preprocessor of a JointDistiller prepares the source '
            "alone, as dict(type='mmcmcd.PairedDataPreprocessor', "
            "source=dict(...)): targets go through the student's own, "
            f'model.student.data_preprocessor. Got {kind} with the sides '
            f'{sorted(sides)}; set data_preprocessor.target=None where it is '
            'inherited.'
        )
    return JointDataPreprocessor(target=student.data_preprocessor, **sides)


def _scale(value, weight):
    """Scale a logged value, or the parts of which it is the sum."""
    if torch.is_tensor(value):
        return weight * value
    return [weight * part for part in value]
