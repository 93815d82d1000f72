from ..models.utils import export_student
from .cli import load_config, run_tool, user_message
from .few_label import (
    Draw,
    FewLabelStudy,
    draw_predictions,
    few_label_table,
)
from .test import prepare_test_config, test_from_config
from .train import prepare_train_config, train_from_config

__all__ = [
    'Draw',
    'FewLabelStudy',
    'draw_predictions',
    'export_student',
    'few_label_table',
    'load_config',
    'prepare_test_config',
    'prepare_train_config',
    'run_tool',
    'test_from_config',
    'train_from_config',
    'user_message',
]
