"""How sure a mean is: bootstrap intervals over patients.

Patients are drawn with replacement, each with all of their cases, because cases of one patient are alike and
would otherwise make intervals too narrow. Intervals are bias-corrected and accelerated (BCa: Efron, J Am Stat
Assoc 1987), which keeps their promise better than plain percentiles for skewed values such as Dice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 2000
_CELLS = 4_000_000  # numbers held at once while drawing: 32 MB
_GROUPS = 500  # patients, or groups of them, left out in turn


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


Statistics = Callable[[FloatArray], FloatArray]  # weights (draws, cases) to values (draws, columns)


def bootstrap_statistics(
    statistics: Statistics,
    patients: Sequence[str],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> list[Interval]:
    """Statistics of a whole sample, such as an area under a curve, with their intervals.

    Drawing a patient twice is the same as giving its cases the weight 2, so `statistics` is asked for many
    weightings at once and can sort its scores a single time. Draws in which a column is undefined (not one
    diseased patient drawn) are left out of that column. All columns share the draws, so a column of
    differences gives the paired interval.

    Args:
        statistics: weights (draws, cases) to values (draws, columns); NaN where undefined. A weight of 0
            must be the same as a case that is not there.
        patients: the patient of each case.
        seed: the same seed and data give the same intervals.
        resamples: how often patients are drawn.
        confidence: share of intervals that should contain the true value.

    Returns:
        One interval per column; `n` is the number of patients. Where the value itself is undefined its
        value, low and high are NaN.
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    n = len(names)
    values = statistics(np.ones((1, len(owner))))[0]
    if n == 1:
        return [Interval(float(value), float(value), float(value), n) for value in values]
    random = np.random.default_rng(seed)
    step = max(1, _CELLS // len(owner))
    drawn = np.concatenate(
        [
            statistics(
                random.multinomial(n, np.full(n, 1.0 / n), size=min(step, resamples - start))[:, owner].astype(
                    np.float64
                )
            )
            for start in range(0, resamples, step)
        ]
    )
    without = _without_groups(statistics, owner, n, step)
    return [
        _corrected(float(value), drawn[:, column], without[:, column], 1.0 - confidence, n)
        if np.isfinite(value)
        else Interval(float("nan"), float("nan"), float("nan"), n)
        for column, value in enumerate(values)
    ]


def _without_groups(statistics: Statistics, owner: npt.NDArray[np.intp], n: int, step: int) -> FloatArray:
    """The statistics without each patient; without each of `_GROUPS` groups of patients where there are more.

    Skewness and variance of sums both grow with the size of a group such that the acceleration stays the
    same in expectation, so groups bound the work for large samples.
    """
    groups = min(n, _GROUPS)
    group = np.random.default_rng(0).permutation(n)[owner] % groups
    parts = []
    for start in range(0, groups, step):
        left_out = np.arange(start, min(start + step, groups))
        parts.append(statistics((group[np.newaxis] != left_out[:, np.newaxis]).astype(np.float64)))
    return np.concatenate(parts)


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
    present = counts > 0
    n = int(present.sum())
    if n == 0:
        return None
    sums, counts = sums[present], counts[present]
    value = float(sums.sum() / counts.sum())
    if n == 1:
        return Interval(value, value, value, n)
    return _corrected(value, drawn, (sums.sum() - sums) / (counts.sum() - counts), alpha, n)


def _corrected(value: float, drawn: FloatArray, without: FloatArray, alpha: float, n: int) -> Interval:
    """The BCa interval of a value from its drawn values and the values without each patient (or group)."""
    from scipy.special import ndtr, ndtri

    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or np.ptp(drawn) <= 1e-12 * max(1.0, abs(value)):
        return Interval(value, value, value, n)
    below = (np.count_nonzero(drawn < value) + 0.5 * np.count_nonzero(drawn == value)) / len(drawn)
    bias = float(ndtri(np.clip(below, 0.5 / len(drawn), 1.0 - 0.5 / len(drawn))))
    acceleration = _acceleration(without[np.isfinite(without)])
    ends = []
    for tail in (alpha / 2.0, 1.0 - alpha / 2.0):
        shifted = bias + float(ndtri(tail))
        ends.append(float(ndtr(bias + shifted / max(1.0 - acceleration * shifted, 1e-3))))
    low, high = np.quantile(drawn, ends)
    return Interval(value, min(float(low), value), max(float(high), value), n)


def _acceleration(without: FloatArray) -> float:
    """How the spread of a value changes with the value, from leaving out one patient (or group) at a time."""
    if not len(without):
        return 0.0
    off = without.mean() - without
    spread = float((off**2).sum())
    return float((off**3).sum()) / (6.0 * spread**1.5) if spread > 1e-300 else 0.0
