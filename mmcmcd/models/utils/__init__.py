from .checkpoint import (
    StateMismatch,
    compare_state,
    file_sha256,
    load_backbone_strict,
    pretrained_cfgs,
    read_checkpoint,
    read_state_dict,
    require_pretrained,
    select_prefix,
    state_hash,
)
from .embedding import embed, feature_map
from .export import export_student
from .stem import adapt_input_channels

__all__ = [
    'StateMismatch',
    'adapt_input_channels',
    'compare_state',
    'embed',
    'export_student',
    'feature_map',
    'file_sha256',
    'load_backbone_strict',
    'pretrained_cfgs',
    'read_checkpoint',
    'read_state_dict',
    'require_pretrained',
    'select_prefix',
    'state_hash',
]
