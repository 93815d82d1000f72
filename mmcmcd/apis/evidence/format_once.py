"""A config whose text is formatted once, not five times a run."""

from functools import lru_cache

from mmengine.config import Config


class _FormattedOnce(Config):
    """mmengine formats a config for its log, its files and its checkpoints.

    That takes a fourth of a run that lasts for seconds.
    """

    @property
    def pretty_text(self):
        """The text that mmengine's config has."""
        return _format(_Content(self))


class _Content:
    """A config, compared by what is in it."""

    def __init__(self, cfg):
        self.cfg = cfg
        self.text = repr(cfg._to_lazy_dict())

    def __eq__(self, other):
        return self.text == other.text

    def __hash__(self):
        return hash(self.text)


@lru_cache(maxsize=4)
def _format(content):
    return Config.pretty_text.fget(content.cfg)


def format_once(cfg):
    """Let a config, and all its copies, remember their formatted text.

    Args:
        cfg (Config): Changed in place.
    """
    object.__setattr__(cfg, '__class__', _FormattedOnce)
