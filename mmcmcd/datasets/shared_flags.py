import torch


class SharedFlags:
    """One flag per item, in memory that loader workers share.

    Setting a flag twice counts once, so no lock is needed.

    Args:
        length (int): Number of items.
    """

    def __init__(self, length):
        self._flags = torch.zeros(length, dtype=torch.uint8).share_memory_()

    def __deepcopy__(self, memo):
        # A deep copy of a shared tensor would not be shared.
        other = SharedFlags(len(self._flags))
        other._flags.copy_(self._flags)
        return other

    def get(self, idx):
        """Whether a flag is set."""
        return bool(self._flags[idx])

    def set(self, idx):
        """Set a flag."""
        self._flags[idx] = 1

    def count(self):
        """How many flags are set."""
        return int(self._flags.sum())

    def first(self, number):
        """The first items whose flags are set."""
        return self._flags.nonzero().flatten()[:number].tolist()
