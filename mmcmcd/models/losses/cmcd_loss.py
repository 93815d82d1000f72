from torch import Tensor

from mmcmcd.errors import ConfigError
from mmcmcd.registry import MODELS

from .base import PairwiseLoss, Rows
from .cmc_loss import CMCLoss
from .cmd_loss import CMDLoss


@MODELS.register_module()
class CMCDLoss(PairwiseLoss):
    """CMD and CMC together, each with its weight.

    The paper treats the two as alternatives; their weighted sum is this
    project's choice.  Rows are normalised, and gathered from all processes,
    once.

    Args:
        cmd (dict, optional): Arguments of :class:`CMDLoss`; None leaves the
            term out.
        cmc (dict, optional): Arguments of :class:`CMCLoss`; None leaves the
            term out.

    Example:
        >>> loss = CMCDLoss(cmd=dict(form='within'), cmc=dict())
        >>> loss(student, teacher)
        {'loss_cmd': tensor(...), 'loss_cmc': tensor(...)}
    """

    def __init__(
        self, cmd: dict | None = None, cmc: dict | None = None
    ) -> None:
        super().__init__()
        if cmd is None and cmc is None:
            raise ConfigError(
                'CMCDLoss needs cmd, cmc or both: dict() takes '
                'the default arguments of a term.'
            )
        self.cmd = None if cmd is None else CMDLoss(**cmd)
        self.cmc = None if cmc is None else CMCLoss(**cmc)
        self.shared_space = self.cmc is not None or self.cmd.shared_space
        self.compares_students = (
            self.cmd is not None and self.cmd.compares_students
        )

    @property
    def needs_memory(self) -> bool:
        """Whether CMD compares with a memory alone."""
        return self.cmd is not None and self.cmd.needs_memory

    @property
    def places_student(self) -> bool:
        """Whether one of the terms brings student to teacher rows."""
        terms = (self.cmd, self.cmc)
        return any(term is not None and term.places_student for term in terms)

    def compare(self, rows: Rows) -> dict[str, Tensor]:
        """Compute both terms of normalised rows.

        Returns:
            dict[str, Tensor]: ``loss_cmd`` and ``loss_cmc``, weighted
            scalars; mmengine sums and logs both.
        """
        terms = dict(cmd=self.cmd, cmc=self.cmc)
        return {
            f'loss_{name}': term.compare(rows)
            for name, term in terms.items()
            if term is not None
        }
