from ..models.utils import export_student
from .cached_run import train_cached
from .cli import (
    add_cfg_options_flag,
    add_trust_flag,
    at_least,
    load_config,
    run_tool,
    user_message,
)
from .few_label import (
    Draw,
    FewLabelStudy,
    few_label_table,
    label_list,
    parse_students,
)
from .few_label_picture import draw_predictions
from .test import prepare_test_config, test_from_config
from .train import prepare_train_config, train_from_config

__all__ = [
    'Draw',
    'FewLabelStudy',
    'add_cfg_options_flag',
    'add_trust_flag',
    'at_least',
    'draw_predictions',
    'export_student',
    'few_label_table',
    'label_list',
    'load_config',
    'parse_students',
    'prepare_test_config',
    'prepare_train_config',
    'run_tool',
    'test_from_config',
    'train_cached',
    'train_from_config',
    'user_message',
]
