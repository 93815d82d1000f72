from .log_mel import log_mel
from .spec_augment import spec_augment

__all__ = ['log_mel', 'spec_augment']
