"""How sure a mean is: bootstrap intervals over patients.

Patients are drawn with replacement, each with all of their cases, because cases of one patient are alike and
would otherwise make intervals too narrow. Intervals are bias-corrected and accelerated (BCa: Efron, J Am Stat
Assoc 1987), which keeps their promise better than plain percentiles for skewed values such as Dice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 2000
_CELLS = 4_000_000  # numbers held at once while drawing: 32 MB


@dataclass(frozen=True)
class Interval:
    """A mean over cases with its interval and the number of patients behind it.

    With one patient there is nothing to draw from: low and high then repeat the value, and `n` says why.
    """

    value: float
    low: float
    high: float
    n: int


def bootstrap_means(
    values: npt.ArrayLike,
    patients: Sequence[str],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> list[Interval | None]:
    """The mean of each column with its interval; None for a column without a single finite value.

    All columns are drawn with the same resamples, so a column of differences between two arms gives the
    paired interval.

    Args:
        values: (cases, columns); NaN where a case has no value, which is left out of that column.
        patients: the patient of each case.
        seed: the same seed and values give the same intervals.
        resamples: how often patients are drawn.
        confidence: share of intervals that should contain the true mean.
    """
    table = np.asarray(values, dtype=np.float64)
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    known = np.isfinite(table)
    sums = np.zeros((len(names), table.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, owner, np.where(known, table, 0.0))
    np.add.at(counts, owner, known.astype(np.float64))
    drawn = _draw(sums, counts, seed, resamples)
    return [
        _interval(sums[:, column], counts[:, column], drawn[:, column], 1.0 - confidence)
        for column in range(table.shape[1])
    ]


def _draw(sums: FloatArray, counts: FloatArray, seed: int, resamples: int) -> FloatArray:
    """Means (resamples, columns) of patients drawn with replacement; NaN where none drawn has a value."""
    random = np.random.default_rng(seed)
    patients = len(sums)
    share = np.full(patients, 1.0 / patients)
    means = np.full((resamples, sums.shape[1]), np.nan)
    step = max(1, _CELLS // patients)
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        weights = random.multinomial(patients, share, size=part.stop - start).astype(np.float64)
        total = weights @ counts
        np.divide(weights @ sums, total, out=means[part], where=total > 0)
    return means


def _interval(sums: FloatArray, counts: FloatArray, drawn: FloatArray, alpha: float) -> Interval | None:
    """The BCa interval of one column from its per-patient sums and its drawn means."""
    from scipy.special import ndtr, ndtri

    present = counts > 0
    n = int(present.sum())
    if n == 0:
        return None
    sums, counts = sums[present], counts[present]
    value = float(sums.sum() / counts.sum())
    drawn = drawn[np.isfinite(drawn)]
    if n == 1 or np.ptp(drawn) <= 1e-12 * max(1.0, abs(value)):
        return Interval(value, value, value, n)
    below = (np.count_nonzero(drawn < value) + 0.5 * np.count_nonzero(drawn == value)) / len(drawn)
    bias = float(ndtri(np.clip(below, 0.5 / len(drawn), 1.0 - 0.5 / len(drawn))))
    acceleration = _acceleration(sums, counts)
    ends = []
    for tail in (alpha / 2.0, 1.0 - alpha / 2.0):
        shifted = bias + float(ndtri(tail))
        ends.append(float(ndtr(bias + shifted / max(1.0 - acceleration * shifted, 1e-3))))
    low, high = np.quantile(drawn, ends)
    return Interval(value, min(float(low), value), max(float(high), value), n)


def _acceleration(sums: FloatArray, counts: FloatArray) -> float:
    """How the spread of the mean changes with the mean, from leaving out one patient at a time."""
    without = (sums.sum() - sums) / (counts.sum() - counts)
    off = without.mean() - without
    spread = float((off**2).sum())
    return float((off**3).sum()) / (6.0 * spread**1.5) if spread > 0 else 0.0
