"""Compare a student's embeddings with a teacher's by named losses."""

from torch import Tensor, nn

from mmcmcd.errors import ConfigError
from mmcmcd.models.memory import FeatureQueue
from mmcmcd.registry import MODELS


def build_losses(losses: dict[str, dict], where: str) -> nn.ModuleDict:
    """Build named losses.

    Args:
        losses (dict[str, dict]): Their configs.
        where (str): Their place in the config, for messages.

    Raises:
        ConfigError: There is none.
    """
    if not losses:
        raise ConfigError(
            f'{where} is empty: give at least one, for example '
            "losses=dict(cmcd=dict(type='mmcmcd.CMCDLoss', cmd=dict(), "
            'cmc=dict())).'
        )
    return nn.ModuleDict(
        {name: MODELS.build(cfg) for name, cfg in losses.items()}
    )


def compare(
    student: Tensor,
    teacher: Tensor,
    group_ids: Tensor | None,
    losses: nn.ModuleDict,
    queue: FeatureQueue | None,
    where: str = 'losses',
    stored_student: Tensor | None = None,
) -> dict[str, Tensor]:
    """Call every loss on one batch, then, in training, remember the batch.

    Args:
        student (Tensor): Embeddings (B, D_s).
        teacher (Tensor): Embeddings (B, D_t); row ``i`` of both is one pair.
        group_ids (Tensor, optional): Integers (B, ); pairs that share a
            group are not negatives of each other.
        losses (nn.ModuleDict): Each is called as ``loss(student, teacher,
            memory, group_ids)`` and gives a scalar, or a dict of them.
        queue (FeatureQueue, optional): Memory of earlier batches. In
            evaluation it is read alone: a validation loss must not put
            its pairs among the candidates of training.
        where (str): Place of the losses in the config, for messages.
        stored_student (Tensor, optional): What the queue remembers of the
            students (B, D_s). Defaults to None: ``student``.

    Returns:
        dict[str, Tensor]: ``loss_<name>`` of a scalar, a dict as it is.

    Raises:
        ConfigError: Two losses log one key, or a queue gets no groups.
    """
    if queue is not None and group_ids is None:
        raise ConfigError(
            'A queue needs to know which pairs are the same: the data '
            'samples lack group_index. Pack them with '
            'mmcmcd.PackPairedInputs.'
        )
    memory = None if queue is None else queue.view()
    results = {}
    for name, loss in losses.items():
        value = loss(student, teacher, memory, group_ids)
        terms = value if isinstance(value, dict) else {f'loss_{name}': value}
        add_terms(results, terms, f'{where}.{name}')
    if queue is not None and queue.training:
        stored = student if stored_student is None else stored_student
        queue.enqueue(stored, teacher, group_ids)
    return results


def add_terms(results: dict, terms: dict, where: str) -> None:
    """Add terms to log to those of others, in place.

    Raises:
        ConfigError: One of their keys is taken.
    """
    if set(results) & set(terms):
        raise ConfigError(
            f'{where} logs {sorted(terms)}, of which another one logs some '
            f'already: {sorted(results)}. Merge or rename them.'
        )
    results.update(terms)
