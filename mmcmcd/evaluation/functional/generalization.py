"""Terms of the template of a generalisation bound, for linear heads.

The template is not the paper's theorem, see docs/generalization.md.
"""

import math

import torch
from torch import Tensor

from mmcmcd.errors import ConfigError

# Signs that exist at a time in the estimate by Monte Carlo.
_CHUNK = 256
# Of cosines in double precision.
_ROUNDING = 1e-12


def rademacher_linear(
    features: Tensor, radius: float, outputs: int = 1
) -> float:
    r"""Bound the empirical Rademacher complexity of linear heads.

    The class is ``x -> W x`` with K outputs and ``||W||_F <= radius``:

    .. math::
        R_n = \frac{B}{n} E_\sigma \| \sum_i \sigma_i x_i^T \|_F
            \le \frac{B}{n} \sqrt{K \sum_i \|x_i\|^2}

    with independent signs ``sigma`` (n, K), by Jensen's inequality: the trace
    form of Bartlett and Mendelson, "Rademacher and Gaussian Complexities",
    JMLR 2002, Lemma 22, for K outputs. The left side is at least
    ``1 / sqrt(2)`` of the right one (Khintchine and Kahane with the best
    constant, Latala and Oleszkiewicz, Studia Math. 1994).

    Args:
        features (Tensor): (n, D), one row a labelled sample.
        radius (float): B, the largest norm of the head, not negative.
        outputs (int): K. Defaults to 1.

    Returns:
        float: The right side.

    Raises:
        ConfigError: There are no features, or one is not finite.
    """
    rows = _checked(features)
    return radius / len(rows) * math.sqrt(outputs * float(rows.square().sum()))


def rademacher_linear_monte_carlo(
    features: Tensor,
    radius: float,
    outputs: int = 1,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Estimate the same complexity by random signs.

    Args:
        features (Tensor): See :func:`rademacher_linear`.
        radius (float): As there.
        outputs (int): As there.
        draws (int): Of the signs, 2 or more. Defaults to 1000.
        seed (int): Of the draws. Defaults to 0.

    Returns:
        tuple[float, float]: The mean over the draws, and its standard error.

    Raises:
        ConfigError: See :func:`rademacher_linear`; or too few draws.
    """
    rows = _checked(features)
    if draws < 2:
        raise ConfigError(
            f'rademacher_linear_monte_carlo: draws={draws}; an error can be '
            'estimated from 2 or more.'
        )
    generator = torch.Generator().manual_seed(seed)
    norms = []
    for start in range(0, draws, _CHUNK):
        shape = min(_CHUNK, draws - start), outputs, len(rows)
        signs = torch.randint(0, 2, shape, generator=generator)
        sums = (2 * signs - 1).to(rows.dtype) @ rows
        norms.append(sums.flatten(1).norm(dim=1))
    values = radius / len(rows) * torch.cat(norms)
    return float(values.mean()), float(values.std() / math.sqrt(draws))


def confidence_term(count: int, delta: float = 0.05) -> float:
    """What a bound of the error by n samples adds, to hold at 1 - delta.

    ``3 sqrt(log(2 / delta) / (2 n))`` for losses in [0, 1], where the
    complexity is that of the samples: Mohri, Rostamizadeh and Talwalkar,
    "Foundations of Machine Learning", 2nd ed., Theorem 3.3.

    Args:
        count (int): n.
        delta (float): Chance that the bound fails, in (0, 1). Defaults to
            0.05.

    Returns:
        float: The term.

    Raises:
        ConfigError: ``delta`` or ``count`` is out of range.
    """
    if not 0 < delta < 1 or count < 1:
        raise ConfigError(
            f'confidence_term: expected count >= 1 and 0 < delta < 1, got '
            f'count={count}, delta={delta}.'
        )
    return 3 * math.sqrt(math.log(2 / delta) / (2 * count))


def margin_loss(scores: Tensor, labels: Tensor) -> float:
    """Mean ramp loss, which bounds the error and has values in [0, 1].

    ``min(1, max(0, 1 - margin))`` of the margin between the score of the
    true class and the best other one: Mohri et al., Definition 5.5 and
    section 9.2, with margin 1.

    Args:
        scores (Tensor): (n, K) of a head, K at least 2.
        labels (Tensor): (n, ) columns of the true classes.

    Returns:
        float: The mean.
    """
    true = scores.gather(1, labels[:, None])
    others = scores.scatter(1, labels[:, None], -torch.inf)
    margin = true[:, 0] - others.max(dim=1).values
    return float((1 - margin).clamp(0, 1).mean())


def relational_discrepancy(teacher: Tensor, student: Tensor) -> float:
    """How differently two networks see the similarities of the same pairs.

    One minus the Pearson correlation between the cosines of all couples of
    rows, a sample with itself left out: 0 for the same similarities, about 1
    for unrelated ones. It is blind to rotation and scale, so that it suits
    every objective, CMD within too. This is the (dis)similarity of
    Kriegeskorte et al., "Representational similarity analysis", 2008.

    Args:
        teacher (Tensor): (N, D).
        student (Tensor): (N, D'), the same samples in the same order.

    Returns:
        float: In [0, 2].

    Raises:
        ConfigError: The numbers of rows differ or are below 3, all cosines
            of one side are the same, or a value is not finite.
    """
    if len(teacher) != len(student) or len(teacher) < 3:
        raise ConfigError(
            'relational_discrepancy: expected the same 3 or more samples on '
            f'both sides, got {len(teacher)} and {len(student)}.'
        )
    row, column = torch.triu_indices(len(teacher), len(teacher), offset=1)
    cosines = []
    for rows in (teacher, student):
        unit = torch.nn.functional.normalize(_checked(rows))
        cosines.append((unit @ unit.T)[row, column])
    both = torch.stack(cosines)
    if float(both.std(dim=1).min()) < _ROUNDING:
        raise ConfigError(
            'relational_discrepancy: all rows of one side are equally '
            'similar; expected features that tell samples apart.'
        )
    return float(1 - torch.corrcoef(both)[0, 1])


def _checked(features):
    """Return features as rows of double precision."""
    if features.ndim != 2 or not features.numel():
        raise ConfigError(
            'Expected features (samples, dimensions), got shape '
            f'{tuple(features.shape)}.'
        )
    if not features.isfinite().all():
        raise ConfigError(
            'A feature is NaN or infinite: look at the network and at its '
            'inputs.'
        )
    return features.double()
