import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import adapt_input_channels, embed
from mmcmcd.registry import MODELS

from .batch import (
    group_ids,
    require_several,
    require_sides,
    valid_pixels,
)
from .comparison import (
    add_terms,
    build_losses,
    compare,
    show_networks,
    watching,
)
from .dense_comparison import build_dense
from .frozen_teacher import FrozenTeacher
from .gradient_cache import (
    Features,
    check_chunk_size,
    embed_in_chunks,
    extract_in_chunks,
)
from .momentum_student import build_momentum_student
from .source_norm import apply_source_norm, build_source_norm


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
        losses (dict[str, dict], optional): Named configs of losses of whole
            images. Each is called as ``loss(student, teacher, memory,
            group_ids)`` and logged as ``loss_<name>``. Those that look into
            the networks, such as :class:`SOCKETLoss`, are shown both
            backbones (``watch``). Defaults to None, which needs ``dense``.
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
        forward_chunk_size (int, optional): Pairs that pass the networks at
            once, see :func:`embed_in_chunks`; the losses see the whole
            batch, which may then be larger than the networks' activations
            allow. Defaults to None: all.
        momentum_student (dict, optional): Config of an averaged model such
            as ``dict(type='ExponentialMovingAverage', momentum=0.001)``. The
            queue then stores rows of this average of student and
            ``student_projector``, which change more slowly than the
            student's (CompRess, Koohpayegani et al., NeurIPS 2020); all else
            is the trained student's. Updated at each forward pass in
            training, even where gradients are accumulated over several;
            kept in checkpoints, and not exported. Defaults to None: the
            queue stores the student's rows.
        dense (dict[str, dict], optional): Named comparisons of feature maps,
            location by location, see :class:`DenseComparison`; logged as
            ``loss_<name>``. They share the forward passes of the rest and
            have no queue. Defaults to None.
        data_preprocessor (dict, optional): Usually a
            :class:`PairedDataPreprocessor`.
        init_cfg (dict, optional): As in mmengine.

    Raises:
        ConfigError: A value is out of range, ``momentum_student`` has no
            queue to fill, or there is neither ``losses`` nor ``dense``.
    """

    def __init__(
        self,
        teacher: dict,
        student: dict,
        losses: dict[str, dict] | None = None,
        teacher_projector: dict | None = None,
        source_norm: dict | None = None,
        student_projector: dict | None = None,
        queue: dict | None = None,
        student_stem: str | None = None,
        forward_chunk_size: int | None = None,
        momentum_student: dict | None = None,
        dense: dict[str, dict] | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        check_chunk_size(forward_chunk_size)
        self.forward_chunk_size = forward_chunk_size
        # A tuple hides the teacher from nn.Module's registration.
        self._frozen = (FrozenTeacher(teacher, teacher_projector),)
        self.source_norm = (
            None
            if source_norm is None
            else build_source_norm(source_norm, 'source_norm')
        )
        self.student = self._build_student(student)
        if student_stem is not None:
            adapt_input_channels(self.student_backbone, student_stem)
        self.student_projector = (
            None
            if student_projector is None
            else MODELS.build(student_projector)
        )
        self.dense = build_dense(dense)
        if losses or not self.dense:
            self.losses = build_losses(losses, 'losses')
        else:
            _check_dense_alone(
                queue=queue, student_projector=student_projector
            )
            self._check_last_stage()
            self.losses = nn.ModuleDict()
        self.queue = None if queue is None else MODELS.build(queue)
        if momentum_student is not None and queue is None:
            raise ConfigError(
                'model.momentum_student only fills a queue, and there is '
                "none. Set model.queue=dict(type='mmcmcd.FeatureQueue', "
                'size=..., teacher_dim=..., student_dim=...), or leave '
                'momentum_student out.'
            )
        self.momentum_student = (
            None
            if momentum_student is None
            else build_momentum_student(
                momentum_student, self._trained_networks()
            )
        )
        # After the momentum student, a copy that nobody needs to look into.
        show_networks(
            self.losses,
            self.student_backbone,
            self.teacher.module['teacher'],
            forward_chunk_size,
        )
        self.register_state_dict_post_hook(_note_space)

    def _check_last_stage(self):
        """Stop where nothing would train the end of the student."""
        stages = getattr(self.student, 'out_indices', None)
        if not isinstance(stages, (tuple, list)):
            return
        last = {-1, len(stages) - 1}
        compared = [dense.stage for dense in self.dense.values()]
        if last.isdisjoint(compared):
            raise ConfigError(
                f'model.dense compares stages {compared} of the student alone '
                f'and there are no losses: what follows them, up to the last '
                f'of out_indices={tuple(stages)}, would not be trained. '
                'Compare the last stage (-1), too, add losses, or leave these '
                'stages out of the student (num_stages, out_indices).'
            )

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

    @property
    def student_backbone(self) -> nn.Module:
        """What is distilled."""
        return self.student

    def _build_student(self, cfg):
        return MODELS.build(cfg)

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
        require_several(inputs['source'])
        teacher = self._extract_source(inputs['source'])
        with watching(self.losses):
            student = self._extract_target(inputs['target'])
        groups = group_ids(data_samples, student.rows.device)
        results = compare(
            student.rows,
            teacher.rows,
            groups,
            self.losses,
            self.queue,
            stored_student=self._embed_for_queue(inputs['target']),
        )
        valid = valid_pixels(data_samples, inputs) if self.dense else None
        for name, dense in self.dense.items():
            terms = dense(
                student.maps[dense.stage],
                teacher.maps[dense.teacher_stage],
                groups,
                valid,
                [sample.get('pair_id') for sample in data_samples or ()],
            )
            add_terms(results, terms, f'dense.{name}')
        return results

    def extract_feat(self, inputs: Tensor):
        """Return the student's features of target images (B, C, H, W)."""
        return self.student_backbone(inputs)

    def embed_source(self, images: Tensor) -> Tensor:
        """Return the teacher's embeddings (B, D) of source images."""
        return self._extract_source(images).rows

    def embed_target(self, images: Tensor) -> Tensor:
        """Return the student's embeddings (B, D) of target images."""
        return self._extract_target(images).rows

    def predict(self, inputs: dict[str, Tensor], data_samples: list) -> list:
        """Embed both sides of each pair.

        Returns:
            list[DataSample]: The samples, with ``source_embedding`` and
            ``target_embedding``, each (D, ), set, and where there are dense
            comparisons ``regions``, by their names what
            :meth:`DenseComparison.regions` gives.
        """
        _require_sides(inputs)
        teacher = self._extract_source(inputs['source'])
        student = self._extract_target(inputs['target'])
        fields = dict(
            source_embedding=teacher.rows, target_embedding=student.rows
        )
        if self.dense:
            valid = valid_pixels(data_samples, inputs)
            fields['regions'] = self._regions(student, teacher, valid)
        for field, values in fields.items():
            for sample, value in zip(data_samples, values, strict=True):
                sample.set_field(value, field)
        return data_samples

    def _regions(self, student, teacher, valid):
        """By image, then by name, the rows of the dense comparisons."""
        found = {
            name: dense.regions(
                student.maps[dense.stage],
                teacher.maps[dense.teacher_stage],
                valid,
            )
            for name, dense in self.dense.items()
        }
        return [
            dict(zip(found, regions, strict=True))
            for regions in zip(*found.values(), strict=True)
        ]

    def _extract_source(self, images):
        """Embeddings, normalised, and maps as they are."""
        stages = [dense.teacher_stage for dense in self.dense.values()]
        rows, maps = self.teacher.extract(
            images, self.forward_chunk_size, stages
        )
        if self.source_norm is not None:
            rows = apply_source_norm(self.source_norm, rows, 'source_norm')
        return Features(rows, maps)

    def _extract_target(self, images):
        """Embeddings, projected, and maps as they are."""
        stages = [dense.stage for dense in self.dense.values()]
        rows, maps = extract_in_chunks(
            self.student_backbone, images, self.forward_chunk_size, stages
        )
        return Features(embed(rows, self.student_projector), maps)

    @torch.no_grad()
    def _embed_for_queue(self, images):
        """The momentum student's rows; None where none are stored."""
        if self.momentum_student is None or not self.training:
            return None
        self.momentum_student.update_parameters(self._trained_networks())
        networks = dict(self.momentum_student.module.items())
        rows = embed_in_chunks(
            networks['student'], images, self.forward_chunk_size
        )
        return embed(rows, networks.get('student_projector'))

    def _trained_networks(self):
        """What is trained to embed the target, as the average has it."""
        networks = dict(
            student=self.student_backbone,
            student_projector=self.student_projector,
        )
        return nn.ModuleDict(
            {name: each for name, each in networks.items() if each is not None}
        )


def _note_space(model, state_dict, prefix, local_metadata):
    # Weights do not tell what they were trained for; their metadata does.
    local_metadata['places_student'] = model.places_student


def _check_dense_alone(**global_parts):
    for name, cfg in global_parts.items():
        if cfg is not None:
            raise ConfigError(
                f'model.{name} serves model.losses, of which there are none '
                f'beside model.dense. Leave {name} out ({name}=None), or add '
                'losses.'
            )


def _require_sides(inputs):
    require_sides(
        inputs,
        ('source', 'target'),
        "CrossModalDistiller takes the sides 'source' (the teacher's) and "
        "'target' (the student's)",
    )
