"""How well a score ranks the diseased above the others, for many weightings of the same cases at once.

The scores are sorted a single time; each draw of the bootstrap then is a weighting of the sorted cases, and
every figure follows from the weighted counts along the list. Equal scores share one step, so ties are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_EXACT = 1e-9  # slack of a share against its limit, for sums of weights


@dataclass(frozen=True)
class Steps:
    """Weighted counts above each distinct score, from the highest score down.

    Args:
        true: (draws, steps) diseased at or above the score.
        false: (draws, steps) others at or above the score.
    """

    true: FloatArray
    false: FloatArray

    @property
    def positives(self) -> FloatArray:
        """(draws,) all diseased."""
        return self.true[:, -1]

    @property
    def negatives(self) -> FloatArray:
        """(draws,) all others."""
        return self.false[:, -1]

    def auroc(self) -> FloatArray:
        """(draws,) area under the ROC curve: the chance that a diseased case scores higher than another.

        Equal scores count one half (Mann and Whitney, Ann Math Stat 1947; Hanley and McNeil, Radiology 1982).
        """
        gained = np.diff(self.true, axis=1, prepend=0.0)
        added = np.diff(self.false, axis=1, prepend=0.0)
        below = self.negatives[:, np.newaxis] - self.false + 0.5 * added
        return _ratio((gained * below).sum(axis=1), self.positives * self.negatives)

    def auprc(self) -> FloatArray:
        """(draws,) average precision: precision at each step, weighted by the recall gained there.

        No interpolation, which would flatter (Davis and Goadrich, ICML 2006).
        """
        gained = np.diff(self.true, axis=1, prepend=0.0)
        precision = _ratio(self.true, self.true + self.false, 0.0)
        return _ratio((gained * precision).sum(axis=1), np.where(self.negatives > 0, self.positives, 0.0))

    def sensitivity_at(self, specificity: float) -> FloatArray:
        """(draws,) highest sensitivity of a threshold with at least this specificity; 0 where none has it."""
        share = _ratio(self.true, self.positives[:, np.newaxis])
        allowed = self.false <= (1.0 - specificity + _EXACT) * self.negatives[:, np.newaxis]
        best = np.where(allowed, share, 0.0).max(axis=1)
        return np.where((self.negatives > 0) & (self.positives > 0), best, np.nan)

    def specificity_at(self, sensitivity: float) -> FloatArray:
        """(draws,) highest specificity of a threshold with at least this sensitivity."""
        share = 1.0 - _ratio(self.false, self.negatives[:, np.newaxis])
        enough = self.true >= (sensitivity - _EXACT) * self.positives[:, np.newaxis]
        best = np.where(enough, share, 0.0).max(axis=1)
        return np.where((self.negatives > 0) & (self.positives > 0), best, np.nan)


class Ranking:
    """Cases by falling score.

    Args:
        truth: (cases,) 1 diseased, 0 not, NaN unknown (counts for nothing).
        score: (cases,) the higher, the more likely diseased.
    """

    def __init__(self, truth: npt.ArrayLike, score: npt.ArrayLike) -> None:
        values = np.asarray(score, dtype=np.float64)
        kind = np.asarray(truth, dtype=np.float64)
        known = np.flatnonzero(np.isfinite(kind))
        self.order = known[np.argsort(-values[known], kind="stable")]
        ordered = values[self.order]
        self.ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(known) else known
        self.diseased = kind[self.order] > 0.5
        self.thresholds: FloatArray = ordered[self.ends]

    def steps(self, weights: FloatArray | None = None) -> Steps:
        """Counts at each distinct score; with weights (draws, cases) of each weighting, else of all cases once."""
        if not len(self.order):
            nothing = np.zeros((1 if weights is None else len(weights), 1))
            return Steps(nothing, nothing)
        ordered = np.ones((1, len(self.order))) if weights is None else weights[:, self.order]
        true = np.cumsum(np.where(self.diseased, ordered, 0.0), axis=1)[:, self.ends]
        false = np.cumsum(np.where(self.diseased, 0.0, ordered), axis=1)[:, self.ends]
        return Steps(true, false)


def auroc(truth: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Area under the ROC curve, exact with ties; NaN where only one class is there."""
    return float(Ranking(truth, score).steps().auroc()[0])


def auprc(truth: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Average precision; NaN where only one class is there."""
    return float(Ranking(truth, score).steps().auprc()[0])


def roc_curve(truth: npt.ArrayLike, score: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Share of others and of diseased at or above each distinct score, from (0, 0) to (1, 1)."""
    steps = Ranking(truth, score).steps()
    false = _ratio(steps.false, steps.negatives[:, np.newaxis])[0]
    true = _ratio(steps.true, steps.positives[:, np.newaxis])[0]
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def precision_recall_curve(truth: npt.ArrayLike, score: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Recall and precision at each distinct score, from the highest score down."""
    steps = Ranking(truth, score).steps()
    recall = _ratio(steps.true, steps.positives[:, np.newaxis])[0]
    return recall, _ratio(steps.true, steps.true + steps.false)[0]


def threshold_at_sensitivity(truth: npt.ArrayLike, score: npt.ArrayLike, sensitivity: float) -> float:
    """The highest score at or above which at least this share of the diseased lies; NaN without diseased."""
    ranking = Ranking(truth, score)
    steps = ranking.steps()
    if not steps.positives[0]:
        return float("nan")
    enough = steps.true[0] >= (sensitivity - _EXACT) * steps.positives[0]
    return float(ranking.thresholds[int(np.argmax(enough))])


def threshold_at_specificity(truth: npt.ArrayLike, score: npt.ArrayLike, specificity: float) -> float:
    """The lowest score at or above which at most 1 - specificity of the others lie; infinite where none does."""
    ranking = Ranking(truth, score)
    steps = ranking.steps()
    allowed = np.flatnonzero(steps.false[0] <= (1.0 - specificity + _EXACT) * steps.negatives[0])
    return float(ranking.thresholds[allowed[-1]]) if len(allowed) else float("inf")


def columns(parts: Sequence[FloatArray]) -> FloatArray:
    """(draws, columns) from values of shape (draws,)."""
    return np.stack(parts, axis=1)


def _ratio(above: FloatArray, below: FloatArray, undefined: float = np.nan) -> FloatArray:
    """The quotient, `undefined` where the denominator is 0."""
    above, below = np.broadcast_arrays(above, below)
    result: FloatArray = np.divide(above, below, out=np.full(above.shape, undefined), where=below > 0)
    return result
