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
    copy of the same pair in the memory) and are left out.  Rows of one block
    (locations of one image) are compared although they are of one group.

    Attributes:
        include_self (bool): Whether an anchor keeps its own row.
        start (int): Row of the batch that is the first anchor's.
        groups (Tensor, optional): Integers of the anchors, (N, ).
        batch_groups (Tensor, optional): Integers of the batch, (B, ).
        memory_groups (Tensor, optional): Integers of the memory, (K, ).
        blocks (Tensor, optional): Integers of the anchors, (N, ); rows of one
            block are of one group.
        batch_blocks (Tensor, optional): Integers of the batch, (B, ).
        within_blocks (bool): Whether all other blocks are left out; then
            there are neither groups nor a memory.
        excluded (Tensor, optional): Further pairs that are left out, (E, 2):
            anchor and row of the batch.  An anchor's own row is none of them.
        num_excluded (Tensor, optional): How many of those pairs each row of
            the batch is in as an anchor, (B, ).
    """

    include_self: bool = True
    start: int = 0
    groups: Tensor | None = None
    batch_groups: Tensor | None = None
    memory_groups: Tensor | None = None
    blocks: Tensor | None = None
    batch_blocks: Tensor | None = None
    within_blocks: bool = False
    excluded: Tensor | None = None
    num_excluded: Tensor | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is left out."""
        return self.keeps_others and self.include_self

    @property
    def keeps_others(self) -> bool:
        """Whether nothing but, perhaps, an anchor's own row is left out."""
        return (
            self.groups is None
            and not self.within_blocks
            and self.excluded is None
        )

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
        anchors = slice(0, num_anchors)
        hidden = candidates.batch.new_zeros(
            num_anchors, candidates.number, dtype=torch.bool
        )
        batch, memory = hidden.tensor_split([len(candidates.batch)], dim=1)
        if self.groups is not None or self.within_blocks:
            everyone = slice(0, batch.shape[1])
            batch.copy_(self.hidden_part('batch', anchors, everyone))
        if self.groups is not None and candidates.memory is not None:
            everyone = slice(0, memory.shape[1])
            memory.copy_(self.hidden_part('memory', anchors, everyone))
        if self.excluded is not None:
            batch[self.excluded.unbind(dim=1)] = True
        hidden.diagonal(self.start)[:num_anchors] = not self.include_self
        return hidden

    def hidden_part(
        self, section: str, rows: slice, columns: slice | Tensor
    ) -> Tensor:
        """Return what groups or blocks leave out.

        Args:
            section (str): ``'batch'`` or ``'memory'``.
            rows (slice): Anchors.
            columns (slice | Tensor): Candidates of the section.

        Returns:
            Tensor: Booleans (n, m), right but for an anchor's own row.
        """
        if section == 'memory':
            return self.groups[rows, None] == self.memory_groups[columns]
        other_block = None
        if self.blocks is not None:
            other_block = self.blocks[rows, None] != self.batch_blocks[columns]
        if self.within_blocks:
            return other_block
        hidden = self.groups[rows, None] == self.batch_groups[columns]
        return hidden if other_block is None else hidden & other_block

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
        if self.blocks is not None:
            in_block = _count(self.batch_blocks, self.batch_blocks) - 1
            if self.within_blocks:
                numbers = in_block
            elif self.groups is not None:
                numbers += in_block
        if self.num_excluded is not None:
            numbers = numbers - self.num_excluded
        return numbers


class TileMask:
    """Hide what anchors leave out, tile by tile, never the whole mask.

    Args:
        keep (Keep): What to hide.
    """

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self._suspects = {}
        self._excluded = None
        if keep.excluded is not None:
            order = keep.excluded[:, 0].argsort()
            self._excluded = keep.excluded[order]
        self._reach = None
        if keep.within_blocks:
            self._reach = _reach(keep)
        # Where few candidates share a group with an anchor, to look for them
        # first saves passes over every tile, but has a result of unknown
        # size, for which a GPU would have to wait.
        if keep.groups is not None and keep.groups.device.type == 'cpu':
            blocks = keep.batch_blocks
            self._suspect(
                'batch',
                keep.batch_groups,
                _repeated
                if blocks is None
                else lambda groups: _in_several_blocks(groups, blocks),
            )
            if keep.memory_groups is not None:
                self._suspect(
                    'memory',
                    keep.memory_groups,
                    lambda groups: _among(groups, keep.groups),
                )

    def seen(self, rows: slice, columns: slice) -> slice:
        """Return the part of some columns that is not hidden altogether.

        Args:
            rows (slice): Anchors.
            columns (slice): Candidates of a section.

        Returns:
            slice: Columns; it stops where it starts if there is none.
        """
        if self._reach is None:
            return columns
        first, last = self._reach
        start = max(columns.start, int(first[rows].min()))
        stop = min(columns.stop, int(last[rows].max()) + 1)
        return slice(start, max(start, stop))

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
        if not keep.keeps_others:
            kept = own.clone() if own is not None else None
            if keep.groups is not None or keep.within_blocks:
                self._hide_groups_(scores, section, rows, columns)
            if section == 'batch' and keep.excluded is not None:
                self._hide_excluded_(scores, rows, columns)
            if kept is not None:
                own.copy_(kept)
        if own is not None and not keep.include_self:
            own.fill_(-torch.inf)

    def _hide_groups_(self, scores, section, rows, columns):
        if section not in self._suspects:
            hidden = self.keep.hidden_part(section, rows, columns)
            scores.masked_fill_(hidden, -torch.inf)
            return
        suspects = self._suspects[section]
        first, last = _places(suspects, columns)
        if first == last:
            return
        suspects = suspects[first:last]
        hidden = self.keep.hidden_part(section, rows, suspects)
        inside = suspects - columns.start
        scores[:, inside] = scores[:, inside].masked_fill_(hidden, -torch.inf)

    def _hide_excluded_(self, scores, rows, columns):
        anchors, others = self._excluded.unbind(dim=1)
        first, last = _places(anchors.contiguous(), rows)
        others = others[first:last]
        inside = (others >= columns.start) & (others < columns.stop)
        at = anchors[first:last][inside] - rows.start
        scores[at, others[inside] - columns.start] = -torch.inf


def _places(ordered, wanted):
    """Where the numbers of a range begin and end among ordered ones."""
    bounds = torch.tensor([wanted.start, wanted.stop], device=ordered.device)
    return torch.searchsorted(ordered, bounds).tolist()


def _reach(keep):
    """First and last row of the batch in the block of each anchor."""
    _, place = keep.batch_blocks.unique(return_inverse=True)
    rows = torch.arange(len(place), device=place.device)
    own = place[keep.start : keep.start + len(keep.blocks)]
    return [
        torch.zeros_like(rows)
        .scatter_reduce_(0, place, rows, how, include_self=False)[own]
        .cpu()
        for how in ('amin', 'amax')
    ]


def _count(groups, others):
    """How many of the others are of each group."""
    ordered = others.sort().values
    after = torch.searchsorted(ordered, groups, right=True)
    return after - torch.searchsorted(ordered, groups)


def _repeated(groups):
    """Rows whose group another row has, too."""
    _, inverse, counts = groups.unique(return_inverse=True, return_counts=True)
    return (counts[inverse] > 1).nonzero().flatten()


def _in_several_blocks(groups, blocks):
    """Rows whose group a row of another block has, too."""
    _, place = blocks.unique(return_inverse=True)
    group_of_block = groups.new_empty(int(place.max()) + 1)
    group_of_block[place] = groups
    repeated = torch.zeros_like(group_of_block, dtype=torch.bool)
    repeated[_repeated(group_of_block)] = True
    return repeated[place].nonzero().flatten()


def _among(groups, wanted):
    """Rows whose group is one of those wanted."""
    wanted = wanted.sort().values
    place = torch.searchsorted(wanted, groups).clamp_(max=len(wanted) - 1)
    return (wanted[place] == groups).nonzero().flatten()
