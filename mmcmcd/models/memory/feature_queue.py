import torch
from mmengine.dist import all_gather
from torch import Tensor, nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.losses import Memory
from mmcmcd.registry import MODELS


@MODELS.register_module()
class FeatureQueue(nn.Module):
    """First-in first-out memory of embeddings of earlier pairs.

    Takes batches of any size, is saved in checkpoints, and never offers rows
    that were not written yet.  In distributed training every process stores
    the rows of all processes, so that the queues stay equal.

    Args:
        size (int): Number of pairs kept, K.
        teacher_dim (int): Dimension of teacher embeddings.
        student_dim (int): Dimension of student embeddings.
    """

    def __init__(self, size: int, teacher_dim: int, student_dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f'FeatureQueue size must be >= 1, got {size}.')
        self.size = size
        self.register_buffer('teacher', torch.zeros(size, teacher_dim))
        self.register_buffer('student', torch.zeros(size, student_dim))
        self.register_buffer(
            'group_ids', torch.full((size,), -1, dtype=torch.long)
        )
        self.register_buffer('written', torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        """Number of pairs that are stored."""
        return min(int(self.written), self.size)

    def view(self) -> Memory | None:
        """Return the stored rows without copying, or None if there are none.

        The rows change at the next :meth:`enqueue`: use them before.
        """
        filled = len(self)
        if not filled:
            return None
        return Memory(
            self.student[:filled],
            self.teacher[:filled],
            self.group_ids[:filled],
        )

    @torch.no_grad()
    def enqueue(
        self, student: Tensor, teacher: Tensor, group_ids: Tensor
    ) -> None:
        """Store a batch, replacing the oldest rows.

        Args:
            student (Tensor): (B, D_s).
            teacher (Tensor): (B, D_t).
            group_ids (Tensor): Integers (B, ).

        Raises:
            ConfigError: The rows are not as wide as the queue.
        """
        widths = dict(student_dim=student, teacher_dim=teacher)
        for name, rows in widths.items():
            stored = getattr(self, name.removesuffix('_dim')).shape[1]
            if rows.shape[1] != stored:
                raise ConfigError(
                    f'FeatureQueue has {name}={stored}, but the embeddings '
                    f'are {rows.shape[1]} wide. Set queue.{name}='
                    f'{rows.shape[1]}.'
                )
        batches = [
            torch.cat(all_gather(rows.detach().contiguous()))[-self.size :]
            for rows in (student, teacher, group_ids)
        ]
        start = int(self.written) % self.size
        first = min(len(batches[0]), self.size - start)
        for buffer, rows in zip(
            (self.student, self.teacher, self.group_ids), batches, strict=True
        ):
            buffer[start : start + first] = rows[:first].to(buffer.dtype)
            buffer[: len(rows) - first] = rows[first:].to(buffer.dtype)
        self.written += len(batches[0])
