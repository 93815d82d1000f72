import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import adapt_input_channels, embed
from mmcmcd.registry import MODELS

from .frozen_teacher import FrozenTeacher


@MODELS.register_module()
class CrossModalDistiller(BaseModel):
    """Distil a teacher of the source modality into a student of the target.

    The teacher is frozen and kept outside the module tree (see
    :class:`FrozenTeacher`); the student is an ordinary backbone, and all
    that :meth:`extract_feat` and :meth:`forward` with a plain tensor show.

    Args:
        teacher (dict): Config of a backbone whose ``init_cfg`` is
            ``Pretrained``; any checkpoint that mmengine can find.
        student (dict): Config of a backbone of mmpretrain or mmseg.
        losses (dict[str, dict]): Named configs of losses. Each is called as
            ``loss(student, teacher, memory, group_ids)`` and logged as
            ``loss_<name>``.
        teacher_projector (dict, optional): Config of a neck on the teacher,
            frozen like it and loaded through its own ``init_cfg``.
        source_norm (dict, optional): Config of a norm layer without trained
            parameters on the teacher's embeddings of the source, such as
            ``dict(type='BN1d', num_features=2048, affine=False)``. Pooled
            ReLU features share a large mean: without it all their cosines
            are near one and the soft targets of CMD near uniform.
        student_projector (dict, optional): Config of a trained neck on the
            student, dropped after distillation.
        queue (dict, optional): Config of a :class:`FeatureQueue`.
        student_stem (str, optional): How three-channel weights that are
            loaded into a student of other input channels are adapted:
            ``'sum'`` or ``'mean'`` over the channels. Defaults to None:
            such weights do not fit.
        data_preprocessor (dict, optional): Usually a
            :class:`PairedDataPreprocessor`.
        init_cfg (dict, optional): As in mmengine.
    """

    def __init__(
        self,
        teacher: dict,
        student: dict,
        losses: dict[str, dict],
        teacher_projector: dict | None = None,
        source_norm: dict | None = None,
        student_projector: dict | None = None,
        queue: dict | None = None,
        student_stem: str | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        # A tuple hides the teacher from nn.Module's registration.
        self._frozen = (FrozenTeacher(teacher, teacher_projector),)
        self.source_norm = (
            None if source_norm is None else MODELS.build(source_norm)
        )
        if self.source_norm and [*self.source_norm.parameters()]:
            raise ConfigError(
                'source_norm has trained parameters, with which the targets '
                f'could be changed at will: got {source_norm}. Set '
                'affine=False.'
            )
        self.student = MODELS.build(student)
        if student_stem is not None:
            adapt_input_channels(self.student, student_stem)
        self.student_projector = (
            None
            if student_projector is None
            else MODELS.build(student_projector)
        )
        if not losses:
            raise ConfigError(
                'losses is empty: give at least one, for example '
                "losses=dict(cmcd=dict(type='mmcmcd.CMCDLoss', cmd=dict(), "
                'cmc=dict())).'
            )
        self.losses = nn.ModuleDict(
            {name: MODELS.build(cfg) for name, cfg in losses.items()}
        )
        self.queue = None if queue is None else MODELS.build(queue)
        self.register_state_dict_post_hook(_note_space)

    @property
    def places_student(self) -> bool:
        """Whether a loss brings students' rows to their teachers' rows."""
        return any(
            getattr(loss, 'places_student', False)
            for loss in self.losses.values()
        )

    @property
    def teacher(self) -> FrozenTeacher:
        """The frozen teacher; no part of the module tree."""
        return self._frozen[0]

    def _apply(self, fn, *args, **kwargs):
        self.teacher.apply_to_tensors(fn)
        return super()._apply(fn, *args, **kwargs)

    def init_weights(self) -> None:
        """Initialise the student and load the teacher strictly."""
        self.teacher.load()
        super().init_weights()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        """Run one of the three modes of OpenMMLab models.

        Args:
            inputs (dict[str, Tensor] | Tensor): Images per side, each
                (B, C, H, W); a plain tensor is the target's.
            data_samples (list[DataSample], optional): Their meta data.
            mode (str): ``'loss'``, ``'tensor'`` or ``'predict'``.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.extract_feat(
                inputs['target'] if isinstance(inputs, dict) else inputs
            )
        raise ConfigError(
            f"mode must be 'loss', 'tensor' or 'predict', but got {mode!r}."
        )

    def loss(self, inputs: dict[str, Tensor], data_samples: list) -> dict:
        """Decide which tensor goes where.

        Args:
            inputs (dict[str, Tensor]): ``source`` and ``target`` images,
                each (B, C, H, W); row ``i`` of both is one pair.
            data_samples (list[DataSample]): ``group_index`` tells pairs that
                are not negatives of each other.

        Returns:
            dict[str, Tensor]: ``loss_<name>`` scalars.
        """
        _require_sides(inputs)
        if len(inputs['source']) < 2:
            raise ConfigError(
                'A batch of 1 pair has no negatives and no batch statistics. '
                'Use train_dataloader.batch_size >= 2 with drop_last=True.'
            )
        teacher = self.embed_source(inputs['source'])
        student = self.embed_target(inputs['target'])
        group_ids = _group_ids(data_samples, student.device)
        memory = None if self.queue is None else self.queue.view()
        results = {}
        for name, loss in self.losses.items():
            value = loss(student, teacher, memory, group_ids)
            terms = (
                value if isinstance(value, dict) else {f'loss_{name}': value}
            )
            if not results.keys().isdisjoint(terms):
                raise ConfigError(
                    f'losses.{name} logs {sorted(terms)}, which another loss '
                    f'logs already: {sorted(results)}. Merge or rename them.'
                )
            results.update(terms)
        if self.queue is not None:
            if group_ids is None:
                raise ConfigError(
                    'A queue needs to know which pairs are the same: the '
                    'data samples lack group_index. Pack them with '
                    'mmcmcd.PackPairedInputs.'
                )
            self.queue.enqueue(student, teacher, group_ids)
        return results

    def extract_feat(self, inputs: Tensor):
        """Return the student's features of target images (B, C, H, W)."""
        return self.student(inputs)

    def embed_source(self, images: Tensor) -> Tensor:
        """Return the teacher's embeddings (B, D) of source images."""
        rows = self.teacher(images)
        if self.source_norm is None:
            return rows
        width = getattr(self.source_norm, 'num_features', rows.shape[1])
        if width != rows.shape[1]:
            raise ConfigError(
                f'source_norm has num_features={width}, but the embeddings of '
                f'the teacher are {rows.shape[1]} wide. Set '
                f'model.source_norm.num_features={rows.shape[1]}.'
            )
        # Statistics of half-precision rows would be rough.
        with torch.autocast(rows.device.type, enabled=False):
            return self.source_norm(rows.to(_dtype(self.source_norm)))

    def embed_target(self, images: Tensor) -> Tensor:
        """Return the student's embeddings (B, D) of target images."""
        return embed(self.student(images), self.student_projector)

    def predict(self, inputs: dict[str, Tensor], data_samples: list) -> list:
        """Embed both sides of each pair.

        Returns:
            list[DataSample]: The samples, with ``source_embedding`` and
            ``target_embedding``, each (D, ), set.
        """
        _require_sides(inputs)
        sides = dict(
            source_embedding=self.embed_source(inputs['source']),
            target_embedding=self.embed_target(inputs['target']),
        )
        for field, rows in sides.items():
            for sample, row in zip(data_samples, rows, strict=True):
                sample.set_field(row, field)
        return data_samples


def _note_space(model, state_dict, prefix, local_metadata):
    # Weights do not tell what they were trained for; their metadata does.
    local_metadata['places_student'] = model.places_student


def _require_sides(inputs):
    if not {'source', 'target'} <= inputs.keys():
        raise ConfigError(
            "CrossModalDistiller takes the sides 'source' (the teacher's) and "
            f"'target' (the student's), but the batch has {sorted(inputs)}. "
            'Name the sides of the data set, of OnSide and of the data '
            'preprocessor so.'
        )


def _group_ids(data_samples, device):
    if not data_samples or 'group_index' not in data_samples[0]:
        return None
    return torch.tensor(
        [sample.group_index for sample in data_samples], device=device
    )


def _dtype(module):
    return next(
        (b.dtype for b in module.buffers() if b.is_floating_point()),
        torch.float32,
    )
