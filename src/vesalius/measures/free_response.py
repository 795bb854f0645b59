"""How many lesions are found at what price in false alarms: FROC and average precision.

Free-response ROC: Bunch et al., Proc SPIE 1977; the competition performance metric: Niemeijer et al., IEEE
Trans Med Imaging 2011, as used by LUNA16 (Setio et al., Med Image Anal 2017). No interpolation: a figure is of
a threshold that exists. All figures are computed for many weightings of the cases at once, for the bootstrap
over patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per image at which sensitivity is stated; CPM is the mean over them."""

_EXACT = 1e-9


class FreeResponse:
    """The candidates of one class by falling score.

    Args:
        score: (candidates,).
        hit: (candidates,) 1 finds a lesion, 0 false alarm, NaN neither (a second mark on a found lesion).
        owner: (candidates,) number of the case that each belongs to.
        lesions: (cases,) lesions of the class.
        images: (cases,) images that were looked over.
    """

    def __init__(
        self,
        score: npt.ArrayLike,
        hit: npt.ArrayLike,
        owner: npt.ArrayLike,
        lesions: npt.ArrayLike,
        images: npt.ArrayLike,
    ) -> None:
        values, kind = np.asarray(score, dtype=np.float64), np.asarray(hit, dtype=np.float64)
        counted = np.flatnonzero(np.isfinite(kind))
        order = counted[np.argsort(-values[counted], kind="stable")]
        ordered = values[order]
        self._ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(order) else order
        self._hit = kind[order] > 0.5
        self._owner = np.asarray(owner, dtype=np.intp)[order]
        self._lesions = np.asarray(lesions, dtype=np.float64)
        self._images = np.asarray(images, dtype=np.float64)
        self.thresholds: FloatArray = ordered[self._ends]

    def above(self, score: float) -> int:
        """The step of the curve that keeps the candidates with a score above this."""
        return int((self.thresholds > score).sum())

    def curve(self, weights: FloatArray | None = None) -> Curve:
        """The free-response curve of each weighting (draws, cases), or of all cases once."""
        used = np.ones((1, len(self._lesions))) if weights is None else weights
        each = used[:, self._owner]
        start = np.zeros((len(used), 1))
        found = np.cumsum(np.where(self._hit, each, 0.0), axis=1)[:, self._ends]
        alarms = np.cumsum(np.where(self._hit, 0.0, each), axis=1)[:, self._ends]
        return Curve(
            np.concatenate([start, found], axis=1),
            np.concatenate([start, alarms], axis=1),
            used @ self._lesions,
            used @ self._images,
        )


@dataclass(frozen=True)
class Curve:
    """Weighted counts above each distinct score, from no candidate at all down to all of them.

    Args:
        found: (draws, steps) lesions found.
        alarms: (draws, steps) false alarms.
        lesions, images: (draws,) all there are.
    """

    found: FloatArray
    alarms: FloatArray
    lesions: FloatArray
    images: FloatArray

    def sensitivity_at(self, rate: float) -> FloatArray:
        """(draws,) share of lesions found at the lowest threshold with at most `rate` false alarms per image."""
        allowed = self.alarms <= (rate + _EXACT) * self.images[:, np.newaxis]
        best = np.where(allowed, self.found, 0.0).max(axis=1)
        return _ratio(best, self.lesions)

    def cpm(self) -> FloatArray:
        """(draws,) competition performance metric: mean sensitivity over `RATES`."""
        mean: FloatArray = np.mean([self.sensitivity_at(rate) for rate in RATES], axis=0)
        return mean

    def average_precision(self) -> FloatArray:
        """(draws,) precision integrated over recall, each precision raised to the best at higher recall.

        The area under the envelope at every recall step (Everingham et al., Int J Comput Vis 2010, as
        changed in 2010: all points, not eleven).
        """
        named = self.found + self.alarms
        precision = np.divide(self.found, named, out=np.zeros_like(named), where=named > 0)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        gained = np.diff(self.found, axis=1)
        return _ratio((gained * envelope[:, 1:]).sum(axis=1), self.lesions)

    def at_step(self, step: int) -> tuple[FloatArray, FloatArray]:
        """(draws,) sensitivity and false alarms per image at one step of the curve."""
        return _ratio(self.found[:, step], self.lesions), _ratio(self.alarms[:, step], self.images)

    def points(self) -> tuple[FloatArray, FloatArray]:
        """False alarms per image and sensitivity of the first weighting, for a plot."""
        return self.alarms[0] / self.images[0], self.found[0] / self.lesions[0]


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    result: FloatArray = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return result
