from .cross_modal_distiller import CrossModalDistiller
from .dense_comparison import DenseComparison
from .frozen_teacher import FrozenTeacher, FrozenTeachers
from .joint_distiller import JointDistiller
from .lesson import Lesson
from .multi_modal_distiller import MultiModalDistiller
from .source_norm import Center, Whiten

__all__ = [
    'Center',
    'CrossModalDistiller',
    'DenseComparison',
    'FrozenTeacher',
    'FrozenTeachers',
    'JointDistiller',
    'Lesson',
    'MultiModalDistiller',
    'Whiten',
]
