import torch
from torch import Tensor, nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.losses import Memory
from mmcmcd.models.losses.functional import unit_rows
from mmcmcd.models.utils.collectives import batch_sizes, gather_rows
from mmcmcd.registry import MODELS

_DTYPES = ('float32', 'float16', 'bfloat16')
# More than half precision makes of a length of one.
_ROUNDING = 0.01


@MODELS.register_module()
class FeatureQueue(nn.Module):
    """First-in first-out memory of embeddings of earlier pairs.

    Rows are stored at unit length.  Batches may have any size, and may be
    larger than the queue; rows that were not written yet are never offered.
    The queue is saved in checkpoints; rows of other lengths in older ones
    are normalised when they are loaded.  In distributed training every process
    stores the rows of all processes, in the order of their ranks, so that
    the queues stay equal.

    It takes ``size * (teacher_dim + student_dim)`` numbers: two times
    1,000,000 x 128 of them are 512 MB in half precision and 1,024 MB in
    single precision, to which the groups add 8 MB.

    Args:
        size (int): Number of pairs kept, K.
        teacher_dim (int): Dimension of teacher embeddings.
        student_dim (int): Dimension of student embeddings.
        dtype (str): ``'float32'``, ``'float16'`` or ``'bfloat16'``, in which
            rows are stored whatever the model is cast to. Defaults to
            ``'float32'``.
    """

    def __init__(
        self,
        size: int,
        teacher_dim: int,
        student_dim: int,
        dtype: str = 'float32',
    ) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f'FeatureQueue size must be >= 1, got {size}.')
        if dtype not in _DTYPES:
            raise ConfigError(
                f'FeatureQueue dtype must be one of {", ".join(_DTYPES)}, as '
                f'a string, but got {dtype!r}.'
            )
        self.size = size
        stored = getattr(torch, dtype)
        self.register_buffer(
            'teacher', torch.zeros(size, teacher_dim, dtype=stored)
        )
        self.register_buffer(
            'student', torch.zeros(size, student_dim, dtype=stored)
        )
        self.register_buffer(
            'group_ids', torch.full((size,), -1, dtype=torch.long)
        )
        self.register_buffer('written', torch.zeros((), dtype=torch.long))
        # ``written`` as Python knows it: a GPU need not be waited for.
        self._num_written = 0
        self._waiting = None

    def __len__(self) -> int:
        """Number of pairs that are stored."""
        waiting = 0 if self._waiting is None else len(self._waiting.group_ids)
        return min(self._num_written + waiting, self.size)

    # A compiler would compile every step anew for another ``_num_written``.
    @torch.compiler.disable
    def view(self) -> Memory | None:
        """Return the stored rows without copying, or None if there are none.

        They stay as they are until, after the next :meth:`enqueue`, the first
        :meth:`view`, ``state_dict()`` or other :meth:`enqueue`: go backward
        through a loss of them before.
        """
        self._write()
        filled = len(self)
        if not filled:
            return None
        return Memory(
            self.student[:filled],
            self.teacher[:filled],
            self.group_ids[:filled],
        )

    @torch.compiler.disable
    @torch.no_grad()
    def enqueue(
        self, student: Tensor, teacher: Tensor, group_ids: Tensor
    ) -> None:
        """Store a batch, replacing the oldest rows.

        In a process group all processes must call it together.

        Args:
            student (Tensor): (B, D_s), of any length and precision.
            teacher (Tensor): (B, D_t), of any length and precision.
            group_ids (Tensor): Integers (B, ).

        Raises:
            ConfigError: The rows are not as wide as the queue.
        """
        self._check_widths(student, teacher)
        self._write()
        sizes = batch_sizes(len(student), student.device)
        batch = Memory(
            unit_rows(student).to(self.student),
            unit_rows(teacher).to(self.teacher),
            group_ids.to(self.group_ids, copy=True),
        )
        # Our losses need the rows that these will replace no more, but to go
        # backward through the losses of others autograd may.
        self._waiting = Memory(
            *(gather_rows(rows, sizes)[-self.size :] for rows in batch)
        )

    def forget_last(self) -> None:
        """Drop the batch of the last :meth:`enqueue`, as if it never came.

        Until the next :meth:`view`, ``state_dict()`` or :meth:`enqueue`.
        """
        self._waiting = None

    @torch.no_grad()
    def _write(self):
        if self._waiting is None:
            return
        batch, self._waiting = self._waiting, None
        num = len(batch.group_ids)
        start = self._num_written % self.size
        first = min(num, self.size - start)
        buffers = Memory(self.student, self.teacher, self.group_ids)
        for buffer, rows in zip(buffers, batch, strict=True):
            buffer[start : start + first] = rows[:first]
            buffer[: num - first] = rows[first:]
        self._num_written += num
        self.written.fill_(self._num_written)

    def _check_widths(self, student, teacher):
        widths = dict(student_dim=student, teacher_dim=teacher)
        for name, rows in widths.items():
            stored = getattr(self, name.removesuffix('_dim')).shape[1]
            if rows.shape[1] != stored:
                raise ConfigError(
                    f'FeatureQueue has {name}={stored}, but the embeddings '
                    f'are {rows.shape[1]} wide. Set queue.{name}='
                    f'{rows.shape[1]}.'
                )

    def _save_to_state_dict(self, *args, **kwargs):
        self._write()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self._waiting = None
        self._num_written = int(self.written)
        for rows in (self.student, self.teacher):
            _normalise(rows)

    def _apply(self, fn, *args, **kwargs):
        def move(tensor):
            # ``model.half()`` would round the rows, ``model.float()`` double
            # the memory that they take.
            moved = fn(tensor)
            if moved.dtype == tensor.dtype:
                return moved
            return tensor.to(moved.device)

        return super()._apply(move, *args, **kwargs)


@torch.no_grad()
def _normalise(rows):
    """Bring rows to unit length in place, but leave unit and zero rows."""
    lengths = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
    others = ((lengths - 1).abs() > _ROUNDING) & (lengths > 0)
    rows[others] = unit_rows(rows[others]).to(rows)
