"""Whether groups of cases differ in what else is known of them, with many questions counted as many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.core.case import Case
from vesalius.core.grid import Array, FloatArray
from vesalius.measures.target import RESERVED

_LEAST_KNOWN = 10  # patients
_MOST_WORDS = 12
_PERMUTATIONS = 1999


@dataclass(frozen=True)
class Association:
    """One covariate against the groups.

    Args:
        covariate: its name.
        test: "Kruskal-Wallis" for numbers, "chi-squared (permutation)" for words.
        effect: epsilon squared, or Cramer's V: 0 for none, 1 for complete.
        probability: of at least this by chance.
        adjusted: the same after Holm's correction over all covariates (Holm, Scand J Stat 1979).
        n: patients.
    """

    covariate: str
    test: str
    effect: float
    probability: float
    adjusted: float
    n: int


def associations(cases: Sequence[Case], labels: Array, seed: int = 0) -> list[Association]:
    """Every covariate against the groups, the surest first.

    One case of each patient counts, so that repeated visits do not make a test surer than it is.

    Args:
        cases: with their covariates.
        labels: (cases,) group of each, -1 for none.
        seed: of the permutations.
    """
    firsts: dict[str, int] = {}
    for number, case in enumerate(cases):
        if labels[number] >= 0:
            firsts.setdefault(case.patient, number)
    chosen = list(firsts.values())
    names = sorted({name for number in chosen for name in cases[number].covariates} - RESERVED)
    found = []
    for name in names:
        known = [number for number in chosen if name in cases[number].covariates]
        values = [cases[number].covariates[name] for number in known]
        tested = _tested(values, labels[known], seed) if len(known) >= _LEAST_KNOWN else None
        if tested is not None:
            found.append((name, *tested, len(known)))
    found.sort(key=lambda row: row[3])
    adjusted, highest = [], 0.0
    for place, row in enumerate(found):
        highest = max(highest, min(1.0, row[3] * (len(found) - place)))
        adjusted.append(highest)
    return [
        Association(name, test, round(effect, 4), probability, value, n)
        for (name, test, effect, probability, n), value in zip(found, adjusted, strict=True)
    ]


def _tested(values: Sequence[float | str], groups: Array, seed: int) -> tuple[str, float, float] | None:
    """(test, effect, probability); None where there is nothing to compare."""
    from scipy import stats

    if len(set(values)) < 2 or len(set(groups.tolist())) < 2:
        return None
    if all(isinstance(value, float) for value in values) and len(set(values)) > 2:
        numbers = np.array(values, np.float64)
        parts = [numbers[groups == group] for group in np.unique(groups)]
        statistic, probability = stats.kruskal(*parts)
        effect = (float(statistic) - len(parts) + 1) / max(len(numbers) - len(parts), 1)
        return "Kruskal-Wallis", float(np.clip(effect, 0.0, 1.0)), float(probability)
    words, coded = np.unique(np.array([str(value) for value in values]), return_inverse=True)
    if len(words) > _MOST_WORDS:
        return None
    _, numbered = np.unique(groups, return_inverse=True)
    own = _chi_squared(coded, numbered)
    rng = np.random.default_rng(seed)
    drawn = [_chi_squared(rng.permutation(coded), numbered) for _ in range(_PERMUTATIONS)]
    probability = (1 + sum(value >= own - 1e-9 for value in drawn)) / (_PERMUTATIONS + 1)
    smaller = min(len(words), int(numbered.max()) + 1) - 1
    return "chi-squared (permutation)", float(np.sqrt(own / (len(values) * smaller))), probability


def _chi_squared(first: Array, second: Array) -> float:
    counts: FloatArray = np.zeros((int(first.max()) + 1, int(second.max()) + 1))
    np.add.at(counts, (first, second), 1.0)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0, keepdims=True) / counts.sum()
    return float(((counts - expected) ** 2 / np.maximum(expected, 1e-12)).sum())
