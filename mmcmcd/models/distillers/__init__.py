from .cross_modal_distiller import CrossModalDistiller
from .frozen_teacher import FrozenTeacher, FrozenTeachers
from .lesson import Lesson
from .multi_modal_distiller import MultiModalDistiller

__all__ = [
    'CrossModalDistiller',
    'FrozenTeacher',
    'FrozenTeachers',
    'Lesson',
    'MultiModalDistiller',
]
