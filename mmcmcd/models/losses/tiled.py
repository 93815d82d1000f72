"""The formulas of :mod:`functional`, tile by tile: exact and flat in memory.

No matrix of all similarities exists, neither in the forward nor in the
backward pass: beside the inputs, O(B + K) numbers and a few tiles.

* A softmax over tiles is a running sum, the weighted mean of candidates with
  it another one (attention; Rabe and Staats, 2021; Dao et al., 2022).
* The teacher takes no gradient.  So the gradient of a student row is a
  difference of weighted means and is finished in the forward pass: the
  backward pass multiplies it with a scalar, and recomputes nothing.
* Rows have unit length: similarities are bounded by the scale (the inverse
  temperature), and up to :data:`_SAFE_SCALE` exponentials need no maximum
  subtracted.  One exponential then serves rows and columns of InfoNCE alike.
  Sharper softmaxes keep a running maximum (Milakov and Gimelshein, 2018).
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .candidates import Candidates, Keep, TileMask

# exp(+-40) and sums of 1e20 such terms fit into single precision.
_SAFE_SCALE = 40.0
# Anchors and candidates at once: what a CPU's caches hold, and what keeps a
# GPU busy.
_CPU_TILE = (512, 2048)
_GPU_TILE = (8192, 8192)
# Fewer anchors at once would waste the matrix product.
_LEAST_ROWS = 64


# Compilers would unroll the loops over tiles: minutes for what is a few large
# operations anyway.
@torch.compiler.disable
def info_nce(
    anchors: Tensor,
    candidates: Candidates,
    temperature: float | Tensor,
    keep: Keep,
    symmetric: bool = True,
    all_reduce: Callable | None = None,
    tile: tuple[int, int] | None = None,
) -> Tensor:
    """See :func:`functional.info_nce`.

    Args:
        anchors (Tensor): Unit rows (N, D).
        candidates (Candidates): Constant unit rows.
        temperature (float | Tensor): May be trained.
        keep (Keep): What an anchor keeps.
        symmetric (bool): Whether both directions are averaged.
        all_reduce (Callable, optional): Sum or maximum over processes.
        tile (tuple[int, int], optional): Anchors and candidates at once.
            Defaults to None: chosen by the device.

    Returns:
        Tensor: The scalar mean over anchors; cannot be differentiated twice.
    """
    scale = 1 / temperature
    return _InfoNCE.apply(
        anchors,
        scale,
        *candidates,
        *keep,
        symmetric,
        all_reduce,
        tile or _choose_tile(anchors),
    )


@torch.compiler.disable
def soft_cross_entropy(
    student: Tensor,
    student_candidates: Candidates,
    teacher: Tensor,
    teacher_candidates: Candidates,
    student_temperature: float,
    teacher_temperature: float,
    keep: Keep,
    tile: tuple[int, int] | None = None,
) -> Tensor:
    """See :func:`functional.soft_cross_entropy`.

    Args:
        student (Tensor): Unit rows (N, D).
        student_candidates (Candidates): Unit rows; the batch may take a
            gradient.
        teacher (Tensor): Constant unit rows (N, D').
        teacher_candidates (Candidates): Constant unit rows.
        student_temperature (float): Of the student's softmax.
        teacher_temperature (float): Of the teacher's softmax.
        keep (Keep): What an anchor keeps.
        tile (tuple[int, int], optional): As in :func:`info_nce`.

    Returns:
        Tensor: The scalar mean over anchors; cannot be differentiated twice.
    """
    return _SoftCrossEntropy.apply(
        student,
        *student_candidates,
        teacher,
        *teacher_candidates,
        1 / student_temperature,
        1 / teacher_temperature,
        *keep,
        tile or _choose_tile(student),
    )


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        anchors,
        scale,
        batch,
        memory,
        include_self,
        start,
        groups,
        batch_groups,
        memory_groups,
        symmetric,
        all_reduce,
        tile,
    ):
        keep = Keep(include_self, start, groups, batch_groups, memory_groups)
        mask = TileMask(keep)
        queries = anchors * scale
        own = batch[start : start + len(anchors)]
        stable = torch.is_tensor(scale) or scale > _SAFE_SCALE
        rows = _Softmax(queries, batch.shape[1], stable)
        if memory is not None:
            _show([(rows, queries, memory)], memory, mask, 'memory', tile)
        positives = (queries * own).sum(dim=1)
        if symmetric:
            columns = _Softmax(batch, 0, stable)
            _count(rows, columns, queries, batch, mask, tile)
            if all_reduce is not None:
                columns.merge(all_reduce)
            pull = _pull(rows, columns, queries, batch, mask, tile)
            own_columns = columns.log_total[start : start + len(anchors)]
            logs = (rows.log_total + own_columns) / 2
        else:
            _show([(rows, queries, batch)], batch, mask, 'batch', tile)
            pull = rows.mean
            logs = rows.log_total
        slope = (pull - own) / len(anchors)
        ctx.save_for_backward(
            slope * scale,
            (anchors * slope).sum() if torch.is_tensor(scale) else None,
        )
        return (logs - positives).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        by_anchors, by_scale = ctx.saved_tensors
        return (
            grad * by_anchors,
            None if by_scale is None else grad * by_scale,
            *[None] * 10,
        )


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        student,
        batch,
        memory,
        teacher,
        teacher_batch,
        teacher_memory,
        scale,
        teacher_scale,
        include_self,
        start,
        groups,
        batch_groups,
        memory_groups,
        tile,
    ):
        keep = Keep(include_self, start, groups, batch_groups, memory_groups)
        mask = TileMask(keep)
        queries, targets = student * scale, teacher * teacher_scale
        width = batch.shape[1]
        q = _Softmax(queries, width, scale > _SAFE_SCALE)
        p = _Softmax(targets, width, teacher_scale > _SAFE_SCALE)
        if memory is not None:
            both = [(q, queries, memory), (p, targets, teacher_memory)]
            _show(both, memory, mask, 'memory', tile)
        pull, mean_score, by_batch = _contrast(
            q, p, queries, targets, batch, teacher_batch, mask, tile
        )
        num = len(student)
        ctx.save_for_backward(
            pull * (scale / num),
            None if by_batch is None else by_batch / num,
        )
        return (q.log_total - mean_score).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        by_student, by_batch = ctx.saved_tensors
        return (
            grad * by_student,
            None if by_batch is None else grad * by_batch,
            *[None] * 12,
        )


class _Softmax:
    """Softmax of N anchors over candidates that are shown in tiles.

    Args:
        anchors (Tensor): Rows (N, D), for their number, type and device.
        width (int): Of the candidates whose mean is wanted; 0 for none.
        stable (bool): Whether scores may be too large to be exponentiated
            without their maximum.
    """

    def __init__(self, anchors: Tensor, width: int, stable: bool) -> None:
        num = len(anchors)
        self._total = anchors.new_zeros(num, 1)
        self._sum = anchors.new_zeros(num, width)
        self._peak = None
        if stable:
            lowest = torch.finfo(anchors.dtype).min
            self._peak = anchors.new_full((num, 1), lowest)

    def weigh_(self, rows: slice, scores: Tensor) -> Tensor:
        """Count scores; return their exponentials, not normalised.

        Args:
            rows (slice): Anchors.
            scores (Tensor): (n, m); overwritten.
        """
        if self._peak is not None:
            old = self._peak[rows]
            new = torch.maximum(old, scores.amax(dim=1, keepdim=True))
            shrink = (old - new).exp_()
            self._total[rows] *= shrink
            self._sum[rows] *= shrink
            self._peak[rows] = new
            scores -= new
        weights = scores.exp_()
        self._total[rows] += weights.sum(dim=1, keepdim=True)
        return weights

    def add_(self, rows: slice, scores: Tensor, values: Tensor) -> None:
        """Count scores (n, m), overwritten, and candidates (m, D)."""
        weights = self.weigh_(rows, scores)
        self._sum[rows] = torch.addmm(self._sum[rows], weights, values)

    def count_weights(self, rows: slice, weights: Tensor) -> None:
        """Count exponentials (m, ) for which no maximum was subtracted."""
        self._total[rows] += weights[:, None]

    def merge(self, all_reduce: Callable) -> None:
        """Add what other processes counted."""
        if self._peak is not None:
            peak = all_reduce(self._peak, 'max')
            self._total *= (self._peak - peak).exp_()
            self._peak = peak
        self._total = all_reduce(self._total, 'sum')

    @property
    def total(self) -> Tensor:
        """Sums of exponentials (N, 1); one where there is no candidate."""
        return self._total + (self._total == 0)

    @property
    def log_total(self) -> Tensor:
        """Log-sum-exp of the scores (N, ); zero where there is none."""
        logs = self.total.log()
        if self._peak is not None:
            logs = torch.where(self._total > 0, logs + self._peak, logs)
        return logs[:, 0]

    @property
    def mean(self) -> Tensor:
        """Weighted mean of the candidates that were added, (N, D)."""
        return self._sum / self.total

    def share_(self, rows: slice, scores: Tensor) -> Tensor:
        """Turn scores into probabilities, in place; all were counted."""
        return scores.sub_(self.log_total[rows, None]).exp_()

    @property
    def stable(self) -> bool:
        """Whether maxima are subtracted."""
        return self._peak is not None


def _show(softmaxes, values, mask, section, tile):
    """Show candidates to all anchors of softmaxes.

    Args:
        softmaxes (list[tuple]): Each a softmax, its anchors (N, D'), scaled,
            and the candidates (M, D') that these are compared with.
        values (Tensor): Candidates (M, D) whose weighted mean is wanted.
        mask (TileMask): What is hidden.
        section (str): ``'batch'`` or ``'memory'``.
        tile (tuple[int, int]): Anchors and candidates at once.
    """
    memory = _tile_memory(softmaxes[0][1], tile)
    for columns in _slices(len(values), tile[1]):
        # Half-precision memory is widened a tile at a time.
        value = values[columns].to(softmaxes[0][1].dtype)
        for softmax, anchors, keys in softmaxes:
            key = value if keys is values else keys[columns].to(value.dtype)
            for rows in _slices(len(anchors), tile[0]):
                scores = _scores(anchors[rows], key, memory)
                mask.hide_(scores, section, rows, columns)
                softmax.add_(rows, scores, value)


def _count(rows, columns, anchors, batch, mask, tile):
    """Count the scores of a batch in both directions."""
    for at, across, scores in _batch_tiles(anchors, batch, mask, tile):
        if rows.stable:
            columns.weigh_(across, scores.T.clone())
            rows.weigh_(at, scores)
        else:
            weights = rows.weigh_(at, scores)
            columns.count_weights(across, weights.sum(dim=0))


def _pull(rows, columns, anchors, batch, mask, tile):
    """Mean of the weighted means of both directions, for each anchor."""
    pull = rows.mean
    by_row, by_column = 1 / rows.total, 1 / columns.total.T
    for at, across, scores in _batch_tiles(anchors, batch, mask, tile):
        if rows.stable:
            weights = columns.share_(across, scores.T.clone()).T
            weights += rows.share_(at, scores)
        else:
            weights = scores.exp_()
            weights *= by_row[at] + by_column[:, across]
        pull[at] = torch.addmm(pull[at], weights, batch[across])
    return pull / 2


def _batch_tiles(anchors, batch, mask, tile):
    memory = _tile_memory(anchors, tile)
    for at in _slices(len(anchors), tile[0]):
        for across in _slices(len(batch), tile[1]):
            scores = _scores(anchors[at], batch[across], memory)
            mask.hide_(scores, 'batch', at, across)
            yield at, across, scores


def _contrast(q, p, queries, targets, batch, teacher_batch, mask, tile):
    """Compare two softmaxes over a batch; the memory was shown before.

    Anchors see the whole batch at once, so that their totals are known: one
    product then serves the difference of both means, and what a candidate
    receives can be told.

    Returns:
        tuple[Tensor]: Difference of the weighted means (N, D), mean score
        (N, ), and the sum of the slopes of the batch's rows (B, D) if they
        take a gradient.
    """
    everyone = slice(0, len(batch))
    pull = torch.empty_like(queries)
    mean_score = queries.new_empty(len(queries))
    by_batch = torch.zeros_like(batch) if batch.requires_grad else None
    step = max(tile[0] * tile[1] // len(batch), min(tile[0], _LEAST_ROWS))
    shape = min(step, len(queries)), len(batch)
    target_memory = _tile_memory(queries, shape)
    score_memory = _tile_memory(queries, shape)
    for rows in _slices(len(queries), step):
        target = _scores(targets[rows], teacher_batch, target_memory)
        mask.hide_(target, 'batch', rows, everyone)
        target = p.weigh_(rows, target)
        scores = _scores(queries[rows], batch, score_memory)
        # Hidden ones have a target of 0, which -inf would turn into nan.
        mean_score[rows] = torch.linalg.vecdot(target, scores)
        mask.hide_(scores, 'batch', rows, everyone)
        slopes = q.weigh_(rows, scores).mul_(1 / q.total[rows])
        slopes.addcmul_(target, -1 / p.total[rows])
        pull[rows] = slopes @ batch
        if by_batch is not None:
            by_batch.addmm_(slopes.T, queries[rows])
    mean_score /= p.total[:, 0]
    mean_score += (queries * p.mean).sum(dim=1)
    return pull + q.mean - p.mean, mean_score, by_batch


def _tile_memory(anchors, tile):
    # Shared by tiles: to get fresh memory for each costs page faults.
    return anchors.new_empty(tile[0] * tile[1])


def _scores(anchors, keys, memory):
    shape = len(anchors), len(keys)
    out = memory[: shape[0] * shape[1]].view(shape)
    return torch.mm(anchors, keys.T, out=out)


def _slices(length: int, step: int) -> Iterator[slice]:
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _choose_tile(anchors):
    rows, columns = _CPU_TILE if anchors.device.type == 'cpu' else _GPU_TILE
    few = max(min(len(anchors), rows), 1)
    return few, rows * columns // few
