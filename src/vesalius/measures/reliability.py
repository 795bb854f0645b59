"""Whether probabilities mean what they say: Brier score, calibration curve and its mean error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesalius.measures.proportion import wilson

FloatArray = npt.NDArray[np.float64]

BINS = 10


class Reliability:
    """Probabilities beside what came true, in bins of equal width.

    Args:
        truth: (cases,) 1 or 0, NaN where unknown (counts for nothing).
        probability: (cases,) 0 to 1.
        bins: how many; each holds its upper edge.
    """

    def __init__(self, truth: npt.ArrayLike, probability: npt.ArrayLike, bins: int = BINS) -> None:
        true, said = np.asarray(truth, dtype=np.float64), np.asarray(probability, dtype=np.float64)
        self._known = np.flatnonzero(np.isfinite(true))
        self._true, self._said = true[self._known], said[self._known]
        place = np.clip(np.ceil(self._said * bins).astype(int) - 1, 0, bins - 1)
        self._members = np.zeros((len(self._known), bins))
        self._members[np.arange(len(self._known)), place] = 1.0

    def brier(self, weights: FloatArray | None = None) -> FloatArray:
        """(draws,) mean squared difference of probability and truth (Brier, Mon Weather Rev 1950)."""
        used = self._used(weights)
        total = used.sum(axis=1)
        above = used @ (self._said - self._true) ** 2
        result: FloatArray = np.divide(above, total, out=np.full(len(used), np.nan), where=total > 0)
        return result

    def calibration_error(self, weights: FloatArray | None = None) -> FloatArray:
        """(draws,) expected calibration error (Naeini et al., AAAI 2015).

        The distance between mean probability and observed share in each bin, weighted by its cases. It is
        above 0 by chance even for a perfect forecast, and more so with few cases.
        """
        used = self._used(weights)
        total = used.sum(axis=1)
        off = np.abs(used @ (self._members * (self._said - self._true)[:, np.newaxis])).sum(axis=1)
        result: FloatArray = np.divide(off, total, out=np.full(len(used), np.nan), where=total > 0)
        return result

    def curve(self) -> list[Bin]:
        """The bins that hold cases, by rising probability."""
        found = []
        for members in self._members.T.astype(bool):
            count, hits = int(members.sum()), float(self._true[members].sum())
            if count:
                low, high = wilson(hits, count)
                found.append(Bin(float(self._said[members].mean()), hits / count, low, high, count))
        return found

    def _used(self, weights: FloatArray | None) -> FloatArray:
        return np.ones((1, len(self._known))) if weights is None else weights[:, self._known]


@dataclass(frozen=True)
class Bin:
    """One bin of a calibration curve: mean probability, observed share with its Wilson interval, cases."""

    probability: float
    share: float
    low: float
    high: float
    cases: int
