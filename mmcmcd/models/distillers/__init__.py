from .cross_modal_distiller import CrossModalDistiller
from .frozen_teacher import FrozenTeacher

__all__ = ['CrossModalDistiller', 'FrozenTeacher']
