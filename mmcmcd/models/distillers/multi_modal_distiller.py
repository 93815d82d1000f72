from mmengine.model import BaseModel, ModuleDict
from torch import Tensor, nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.utils import adapt_input_channels
from mmcmcd.registry import MODELS

from .batch import group_ids, require_several, require_sides
from .comparison import add_terms
from .frozen_teacher import FrozenTeacher, FrozenTeachers
from .gradient_cache import check_chunk_size, embed_in_chunks
from .lesson import Lesson
from .lesson_plan import check_plan
from .source_norm import apply_source_norm, build_source_norm


@MODELS.register_module()
class MultiModalDistiller(BaseModel):
    """Distil one or more teachers into one or more students in one run.

    For data with more than two sides, such as skeleton, inertial and depth.
    Every teacher and every student is named after the side that it sees and
    sees it once per batch. A *lesson* is what one student learns from one
    teacher: several students of one teacher are several lessons with the
    same ``teacher``, several teachers of one student several lessons with
    the same ``student``, whose losses are added. The teachers are frozen and
    kept outside the module tree, see :class:`FrozenTeacher`. A momentum
    student is a matter of :class:`CrossModalDistiller` alone.

    Args:
        teachers (dict[str, dict]): By side: ``backbone`` (a config whose
            ``init_cfg`` is ``Pretrained``) and optionally ``projector`` and
            ``norm``, which are ``teacher_projector`` and ``source_norm`` of
            :class:`CrossModalDistiller`.
        students (dict[str, dict]): By side: config of a backbone.
        lessons (dict[str, dict]): By any name: ``teacher`` and ``student``
            (sides), ``losses``, and optionally ``projector`` (a trained neck
            on the student) and ``queue``, see :class:`Lesson`. Logged as
            ``loss_<lesson>_<name>``.
        student_stems (dict[str, str], optional): By side: ``student_stem``
            of :class:`CrossModalDistiller`. Defaults to None.
        main_student (str, optional): Side of the student that a plain tensor
            is meant for, see :meth:`extract_feat`. Defaults to None: the
            first one.
        forward_chunk_size (int, optional): As in
            :class:`CrossModalDistiller`. Defaults to None.
        data_preprocessor (dict, optional): Usually a
            :class:`PairedDataPreprocessor`.
        init_cfg (dict, optional): As in mmengine.

    Raises:
        ConfigError: Teachers, students and lessons do not fit each other.
    """

    def __init__(
        self,
        teachers: dict[str, dict],
        students: dict[str, dict],
        lessons: dict[str, dict],
        student_stems: dict[str, str] | None = None,
        main_student: str | None = None,
        forward_chunk_size: int | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        check_plan(teachers, students, lessons)
        check_chunk_size(forward_chunk_size)
        self.forward_chunk_size = forward_chunk_size
        # A tuple hides the teachers from nn.Module's registration.
        self._frozen = (
            FrozenTeachers(
                {side: _frozen(side, **cfg) for side, cfg in teachers.items()}
            ),
        )
        self.norms = nn.ModuleDict(
            {
                side: build_source_norm(cfg['norm'], f'teachers.{side}.norm')
                for side, cfg in teachers.items()
                if cfg.get('norm') is not None
            }
        )
        # mmengine's ModuleDict, unlike torch's, initialises what it holds.
        self.students = ModuleDict(
            {side: MODELS.build(cfg) for side, cfg in students.items()}
        )
        for side, mode in (student_stems or {}).items():
            _require_student(side, students, 'student_stems')
            adapt_input_channels(self.students[side], mode)
        self.main_student = main_student or next(iter(students))
        _require_student(self.main_student, students, 'main_student')
        self.lessons = ModuleDict(
            {name: Lesson(name, **cfg) for name, cfg in lessons.items()}
        )

    @property
    def teachers(self) -> FrozenTeachers:
        """The frozen teachers by side; no part of the module tree."""
        return self._frozen[0]

    def _apply(self, fn, *args, **kwargs):
        self.teachers.apply_to_tensors(fn)
        return super()._apply(fn, *args, **kwargs)

    def init_weights(self) -> None:
        """Initialise the students and load the teachers strictly."""
        self.teachers.load()
        super().init_weights()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        """Run one of the three modes of OpenMMLab models.

        Args:
            inputs (dict[str, Tensor] | Tensor): Inputs per side, each
                (B, C, ...); a plain tensor is the main student's.
            data_samples (list[DataSample], optional): Their meta data.
            mode (str): ``'loss'``, ``'tensor'`` or ``'predict'``.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.extract_feat(inputs)
        raise ConfigError(
            f"mode must be 'loss', 'tensor' or 'predict', but got {mode!r}."
        )

    def loss(self, inputs: dict[str, Tensor], data_samples: list) -> dict:
        """Decide which tensor goes where.

        Args:
            inputs (dict[str, Tensor]): One tensor (B, C, ...) per side; row
                ``i`` of all of them belongs together.
            data_samples (list[DataSample]): ``group_index`` tells pairs that
                are not negatives of each other.

        Returns:
            dict[str, Tensor]: ``loss_<lesson>_<name>`` scalars.
        """
        self._require_sides(inputs)
        require_several(inputs[self.main_student])
        teachers = self.embed_sources(inputs)
        students = self.embed_targets(inputs)
        groups = group_ids(data_samples, inputs[self.main_student].device)
        results = {}
        for name, lesson in self.lessons.items():
            terms = lesson(
                students[lesson.student], teachers[lesson.teacher], groups
            )
            add_terms(results, terms, f'lessons.{name}')
        return results

    def extract_feat(self, inputs: Tensor | dict[str, Tensor]):
        """Return features of students alone.

        Args:
            inputs (Tensor | dict[str, Tensor]): What the main student sees,
                (B, C, ...), or such tensors by side.

        Returns:
            tuple[Tensor] | dict[str, tuple[Tensor]]: What the main student's
            backbone gives; of a dict those of every student whose side is
            among them, by side.

        Raises:
            ConfigError: A dict has no student's side.
        """
        if not isinstance(inputs, dict):
            return self.students[self.main_student](inputs)
        sides = [side for side in self.students if side in inputs]
        if not sides:
            raise ConfigError(
                f'The students see {sorted(self.students)}, but the inputs '
                f'are {sorted(inputs)}. Give at least one of their sides.'
            )
        return {side: self.students[side](inputs[side]) for side in sides}

    def embed_sources(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return all teachers' embeddings (B, D), by side."""
        rows = {
            side: teacher(inputs[side], self.forward_chunk_size)
            for side, teacher in self.teachers.items()
        }
        for side, norm in self.norms.items():
            rows[side] = apply_source_norm(
                norm, rows[side], f'teachers.{side}.norm'
            )
        return rows

    def embed_targets(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return all students' pooled features (B, D), by side.

        They are not projected yet: each lesson has a projector of its own.
        """
        return {
            side: embed_in_chunks(
                student, inputs[side], self.forward_chunk_size
            )
            for side, student in self.students.items()
        }

    def predict(self, inputs: dict[str, Tensor], data_samples: list) -> list:
        """Embed both sides of every lesson.

        Returns:
            list[DataSample]: The samples, with a dict ``lessons`` set: for
            every lesson ``source_embedding`` and ``target_embedding``, each
            (D, ), and the files of both sides, ``source_path`` and
            ``target_path`` (None where unknown).
        """
        self._require_sides(inputs)
        teachers = self.embed_sources(inputs)
        students = self.embed_targets(inputs)
        found = [{} for _ in data_samples]
        for name, lesson in self.lessons.items():
            source = teachers[lesson.teacher]
            target = lesson.project(students[lesson.student])
            for sample, own, source_row, target_row in zip(
                data_samples, found, source, target, strict=True
            ):
                own[name] = dict(
                    source_embedding=source_row,
                    target_embedding=target_row,
                    source_path=sample.get(f'{lesson.teacher}_path'),
                    target_path=sample.get(f'{lesson.student}_path'),
                )
        for sample, own in zip(data_samples, found, strict=True):
            sample.set_field(own, 'lessons')
        return data_samples

    def _require_sides(self, inputs):
        require_sides(
            inputs,
            [*self.teachers, *self.students],
            'MultiModalDistiller takes the sides of its teachers '
            f'{sorted(self.teachers)} and of its students '
            f'{sorted(self.students)}',
        )


def _frozen(side, backbone, projector=None, norm=None):
    """Build a teacher; its norm, whose statistics move, is built apart."""
    place = f'teachers.{side}'
    return FrozenTeacher(
        backbone,
        projector,
        dict(
            teacher=f'{place}.backbone',
            teacher_projector=f'{place}.projector',
        ),
    )


def _require_student(side, students, where):
    if side not in students:
        raise ConfigError(
            f'model.{where} names {side!r}, but model.students has '
            f'{sorted(students)}. Name one of them.'
        )
