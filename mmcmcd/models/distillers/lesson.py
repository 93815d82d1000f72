from mmengine.model import BaseModule
from torch import Tensor

from mmcmcd.models.utils import embed
from mmcmcd.registry import MODELS

from .comparison import build_losses, compare


class Lesson(BaseModule):
    """What one student learns from one teacher.

    Args:
        name (str): Its name in the config and in the log.
        teacher (str): Side of the teacher.
        student (str): Side of the student.
        losses (dict[str, dict]): Named configs of losses, see
            :class:`CrossModalDistiller`.
        projector (dict, optional): Config of a trained neck on the student,
            dropped after distillation.
        queue (dict, optional): Config of a :class:`FeatureQueue`.

    Raises:
        ConfigError: There are no losses.
    """

    def __init__(
        self,
        name: str,
        teacher: str,
        student: str,
        losses: dict[str, dict],
        projector: dict | None = None,
        queue: dict | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.teacher = teacher
        self.student = student
        self.losses = build_losses(losses, f'lessons.{name}.losses')
        self.projector = None if projector is None else MODELS.build(projector)
        self.queue = None if queue is None else MODELS.build(queue)

    def forward(
        self, student: Tensor, teacher: Tensor, group_ids: Tensor | None
    ) -> dict[str, Tensor]:
        """Compare one batch.

        Args:
            student (Tensor): Pooled features (B, D) of the student.
            teacher (Tensor): Embeddings (B, D_t) of the teacher.
            group_ids (Tensor, optional): Integers (B, ).

        Returns:
            dict[str, Tensor]: ``loss_<lesson>_<name>`` scalars.
        """
        terms = compare(
            self.project(student),
            teacher,
            group_ids,
            self.losses,
            self.queue,
            f'lessons.{self.name}.losses',
        )
        return {self._key(key): value for key, value in terms.items()}

    def project(self, features: Tensor) -> Tensor:
        """Bring pooled features (B, D) to where they are compared (B, D')."""
        return embed(features, self.projector)

    def _key(self, key: str) -> str:
        # mmengine sums what contains 'loss': it must say so before as after.
        if key.startswith('loss_'):
            return f'loss_{self.name}_{key.removeprefix("loss_")}'
        return f'{self.name}_{key}'
