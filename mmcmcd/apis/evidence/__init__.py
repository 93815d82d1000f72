"""An experiment matrix: many ways to a student, compared fairly."""

from .matrix import Matrix, read_matrix
from .report import write_report
from .settings import read_settings, write_settings
from .work import Workplace, run_jobs, work

__all__ = [
    'Matrix',
    'Workplace',
    'read_matrix',
    'read_settings',
    'run_jobs',
    'work',
    'write_report',
    'write_settings',
]
