"""Variance of areas under ROC curves, and the test for two of them on the same cases.

DeLong, DeLong and Clarke-Pearson (Biometrics 1988), in the fast form of Sun and Xu (IEEE Signal Processing
Letters 2014), which takes the structural components from midranks in n log n. Where a patient has several
cases, these are not independent; the components are then summed by patient as Obuchowski does (Biometrics
1997). With one case per patient the two are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DeLong:
    """Areas under the ROC curves of several scores of the same cases.

    Args:
        areas: (scores,).
        covariance: (scores, scores) of the areas; NaN where a class has fewer than two patients.
    """

    areas: FloatArray
    covariance: FloatArray

    def p_value(self, first: int = 0, second: int = 1) -> float:
        """Two-sided p of the hypothesis that two areas are equal; 1 where they and their ranks agree fully."""
        from scipy.special import ndtr

        difference = float(self.areas[first] - self.areas[second])
        covariance = self.covariance
        variance = float(covariance[first, first] + covariance[second, second] - 2.0 * covariance[first, second])
        if not math.isfinite(variance):
            return float("nan")
        if variance <= 1e-15:
            return 1.0 if abs(difference) <= 1e-12 else 0.0
        return float(2.0 * ndtr(-abs(difference) / math.sqrt(variance)))

    def interval(self, score: int = 0, confidence: float = 0.95) -> tuple[float, float]:
        """Interval of one area on the logit scale, which keeps it within 0 to 1 (Pepe 2003, section 5.2)."""
        from scipy.special import expit, logit, ndtri

        area, spread = float(self.areas[score]), math.sqrt(max(float(self.covariance[score, score]), 0.0))
        if not 0.0 < area < 1.0 or not math.isfinite(spread):
            return (area, area)
        half = float(ndtri(0.5 + confidence / 2.0)) * spread / (area * (1.0 - area))
        return float(expit(logit(area) - half)), float(expit(logit(area) + half))


def delong(truth: npt.ArrayLike, scores: npt.ArrayLike, patients: Sequence[str] | None = None) -> DeLong:
    """The areas of one or more scores with their covariance.

    Args:
        truth: (cases,) 1 diseased, 0 not.
        scores: (scores, cases) or (cases,).
        patients: the patient of each case; every case its own where left out.

    Raises:
        ValueError: only one class is there.
    """
    diseased = np.asarray(truth, dtype=np.float64) > 0.5
    values = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    m, n = int(diseased.sum()), int((~diseased).sum())
    if not m or not n:
        raise ValueError("areas need diseased and other cases")
    owners = np.arange(m + n) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    of_diseased = np.empty((len(values), m))
    of_others = np.empty((len(values), n))
    for row, score in enumerate(values):
        ranks = _midranks(score)
        of_diseased[row] = (ranks[diseased] - _midranks(score[diseased])) / n
        of_others[row] = 1.0 - (ranks[~diseased] - _midranks(score[~diseased])) / m
    areas = of_diseased.mean(axis=1)
    groups = int(owners.max()) + 1
    first = _by_patient(of_diseased - areas[:, np.newaxis], owners[diseased], groups)
    second = _by_patient(of_others - areas[:, np.newaxis], owners[~diseased], groups)
    with_diseased, with_others = len(np.unique(owners[diseased])), len(np.unique(owners[~diseased]))
    mixed = first @ second.T * groups / max(groups - 1, 1)
    covariance = (
        first @ first.T * _correction(with_diseased) / m**2
        + second @ second.T * _correction(with_others) / n**2
        + (mixed + mixed.T) / (m * n)
    )
    return DeLong(areas, covariance)


def _correction(patients: int) -> float:
    """What makes a sum over a sample's patients unbiased; NaN for a single one."""
    return patients / (patients - 1) if patients > 1 else math.nan


def _by_patient(components: FloatArray, owners: npt.NDArray[np.intp], groups: int) -> FloatArray:
    """(scores, patients) sums of the components of each patient's cases."""
    return np.stack([np.bincount(owners, weights=row, minlength=groups) for row in components])


def _midranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, equal values sharing the mean of theirs."""
    from scipy.stats import rankdata

    ranks: FloatArray = rankdata(values, method="average").astype(np.float64)
    return ranks
