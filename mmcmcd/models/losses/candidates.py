"""What anchors are compared with, and what of it they leave out."""

from typing import NamedTuple

import torch
from torch import Tensor


class Candidates(NamedTuple):
    """Rows that all anchors are compared with.

    Attributes:
        batch (Tensor): Rows of the batch, of all processes, (B, D).
        memory (Tensor, optional): Constant rows of earlier batches, (K, D).
    """

    batch: Tensor
    memory: Tensor | None = None

    @property
    def number(self) -> int:
        """How many there are, B + K."""
        memory = 0 if self.memory is None else len(self.memory)
        return len(self.batch) + memory


class Keep(NamedTuple):
    """Which candidates an anchor keeps.

    Anchor ``i`` is itself row ``start + i`` of the batch.  Other candidates
    of its group are false negatives (another sketch of one photo, or an old
    copy of the same pair in the memory) and are left out.

    Attributes:
        include_self (bool): Whether an anchor keeps its own row.
        start (int): Row of the batch that is the first anchor's.
        groups (Tensor, optional): Integers of the anchors, (N, ).
        batch_groups (Tensor, optional): Integers of the batch, (B, ).
        memory_groups (Tensor, optional): Integers of the memory, (K, ).
    """

    include_self: bool = True
    start: int = 0
    groups: Tensor | None = None
    batch_groups: Tensor | None = None
    memory_groups: Tensor | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is left out."""
        return self.groups is None and self.include_self

    def hidden(
        self, num_anchors: int, candidates: Candidates
    ) -> Tensor | None:
        """Return what is left out, for small problems.

        Args:
            num_anchors (int): N.
            candidates (Candidates): Of B and K rows.

        Returns:
            Tensor, optional: Booleans (N, B + K); None if nothing is.
        """
        if self.keeps_all:
            return None
        if self.groups is None:
            hidden = candidates.batch.new_zeros(
                num_anchors, candidates.number, dtype=torch.bool
            )
        else:
            others = self.batch_groups
            if candidates.memory is not None:
                others = torch.cat([others, self.memory_groups])
            hidden = self.groups[:, None] == others
        hidden.diagonal(self.start)[:num_anchors] = not self.include_self
        return hidden

    def num_negatives(self, candidates: Candidates) -> Tensor:
        """Count the candidates that each row of the batch keeps.

        Its own row is none of them.

        Args:
            candidates (Candidates): Of B and K rows.

        Returns:
            Tensor: Integers (B, ).
        """
        batch, memory = candidates
        numbers = torch.full(
            (len(batch),), candidates.number - 1, device=batch.device
        )
        if self.groups is not None:
            numbers -= _count(self.batch_groups, self.batch_groups) - 1
            if memory is not None:
                numbers -= _count(self.batch_groups, self.memory_groups)
        return numbers


class TileMask:
    """Hide what anchors leave out, tile by tile, never the whole mask.

    Args:
        keep (Keep): What to hide.
    """

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self._suspects = {}
        # Where few candidates share a group with an anchor, to look for them
        # first saves passes over every tile, but has a result of unknown
        # size, for which a GPU would have to wait.
        if keep.groups is not None and keep.groups.device.type == 'cpu':
            self._suspect('batch', keep.batch_groups, _repeated)
            if keep.memory_groups is not None:
                self._suspect(
                    'memory',
                    keep.memory_groups,
                    lambda groups: _among(groups, keep.groups),
                )

    def _suspect(self, section, groups, search):
        found = search(groups)
        # Columns are slow to reach: more of them cost more than all.
        if len(found) < len(groups) / 16:
            self._suspects[section] = found

    def hide_(
        self, scores: Tensor, section: str, rows: slice, columns: slice
    ) -> None:
        """Set scores that do not count to minus infinity, in place.

        Args:
            scores (Tensor): Of anchors ``rows`` and candidates ``columns``.
            section (str): ``'batch'`` or ``'memory'``.
            rows (slice): Anchors.
            columns (slice): Candidates of the section.
        """
        keep = self.keep
        if keep.keeps_all:
            return
        own = None
        if section == 'batch':
            own = scores.diagonal(keep.start + rows.start - columns.start)
        if keep.groups is not None:
            kept = own.clone() if own is not None else None
            self._hide_groups_(scores, section, rows, columns)
            if kept is not None:
                own.copy_(kept)
        if own is not None and not keep.include_self:
            own.fill_(-torch.inf)

    def _hide_groups_(self, scores, section, rows, columns):
        groups = self.keep.groups[rows, None]
        others = (
            self.keep.batch_groups
            if section == 'batch'
            else self.keep.memory_groups
        )
        if section not in self._suspects:
            scores.masked_fill_(groups == others[columns], -torch.inf)
            return
        suspects = self._suspects[section]
        bounds = torch.tensor([columns.start, columns.stop])
        first, last = torch.searchsorted(suspects, bounds).tolist()
        if first == last:
            return
        suspects = suspects[first:last]
        same = groups == others[suspects]
        inside = suspects - columns.start
        scores[:, inside] = scores[:, inside].masked_fill_(same, -torch.inf)


def _count(groups, others):
    """How many of the others are of each group."""
    ordered = others.sort().values
    after = torch.searchsorted(ordered, groups, right=True)
    return after - torch.searchsorted(ordered, groups)


def _repeated(groups):
    """Rows whose group another row has, too."""
    _, inverse, counts = groups.unique(return_inverse=True, return_counts=True)
    return (counts[inverse] > 1).nonzero().flatten()


def _among(groups, wanted):
    """Rows whose group is one of those wanted."""
    wanted = wanted.sort().values
    place = torch.searchsorted(wanted, groups).clamp_(max=len(wanted) - 1)
    return (wanted[place] == groups).nonzero().flatten()
