"""Errors that a user can act on.

Every message says what was wrong, where, what was expected and how to mend
it.  The tools print these messages alone, without a traceback, and exit with
code 2 (see :func:`mmcmcd.apis.run_tool`).
"""


class UserError(Exception):
    """Base of all errors caused by input, files or configuration."""


class ConfigError(UserError, ValueError):
    """A configuration value is missing, unknown or contradicts another."""


class DatasetError(UserError, ValueError):
    """A data set is missing, empty, incomplete or inconsistent."""


class BrokenPairError(DatasetError):
    """One pair is of no use: its files do not fit together, or are broken.

    A data set of pairs with ``on_unreadable='skip'`` leaves the pair out; any
    other error stops it.
    """


class UnreadableFileError(BrokenPairError):
    """One file could not be read, or is not what was promised."""


class PairConfigError(ConfigError, DatasetError):
    """A configuration value that does not suit what one pair holds.

    Unlike another :class:`ConfigError` it may be met by one process of a
    distributed run alone.
    """


class CheckpointError(UserError, ValueError):
    """A checkpoint is missing, partial, or made for another network."""


class NonFiniteLossError(UserError, ArithmeticError):
    """A loss or gradient is NaN or infinite; the weights did not get it."""
