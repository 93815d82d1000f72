"""Compare a student's embeddings with a teacher's by named losses."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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


def show_networks(
    losses: nn.ModuleDict,
    student: nn.Module,
    teacher: nn.Module,
    chunk_size: int | None,
) -> None:
    """Show both networks to losses that look into them.

    Args:
        losses (nn.ModuleDict): Of :func:`build_losses`.
        student (nn.Module): The student's backbone.
        teacher (nn.Module): The teacher's.
        chunk_size (int, optional): ``model.forward_chunk_size``.

    Raises:
        ConfigError: They would see chunks, not the batch.
    """
    for name, loss in _watchers(losses):
        if chunk_size is not None:
            raise ConfigError(
                f'model.losses.{name} ({type(loss).__name__}) compares what '
                'happens inside of the student with a whole batch, but '
                f'model.forward_chunk_size={chunk_size} passes parts of it, '
                'and twice. Leave forward_chunk_size out, or choose a loss '
                'of embeddings alone (SOCKETLoss: bn_weight=0).'
            )
        loss.watch(student, teacher)


@contextmanager
def watching(losses: nn.ModuleDict) -> Iterator[None]:
    """Let losses that look into the student see what it does within this."""
    with ExitStack() as stack:
        for _, loss in _watchers(losses):
            stack.enter_context(loss.watching())
        yield


def _watchers(losses):
    for name, loss in losses.items():
        if getattr(loss, 'watches_networks', False):
            yield name, loss


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
        ConfigError: Two losses log one key, a queue gets no groups, or a
            loss needs a queue and there is none.
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
        if queue is None and getattr(loss, 'needs_memory', False):
            raise ConfigError(
                f'{where}.{name} ({type(loss).__name__}) compares with '
                'earlier pairs alone, and there is no queue of them. Set '
                "queue=dict(type='mmcmcd.FeatureQueue', size=..., "
                "teacher_dim=..., student_dim=...), or candidates='all'."
            )
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
