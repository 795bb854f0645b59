"""What a score could spare a reading room: cases below a threshold are read later, the others first.

The threshold keeps nearly every diseased case above it. Sensitivity and specificity do not depend on how
frequent the disease is, predictive values do: they are computed for the prevalence of the place where the
score would be used, by Bayes' rule, and not from the share of diseased cases in the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesalius.measures.intervals import Interval, bootstrap_statistics
from vesalius.measures.proportion import wilson
from vesalius.measures.ranking import Ranking

FloatArray = npt.NDArray[np.float64]

SENSITIVITY = 0.99


@dataclass(frozen=True)
class Triage:
    """Figures of one threshold, each with its interval over patients.

    Args:
        threshold: cases with a lower score would be read later.
        given: True where it was chosen on other cases, False where on these.
        sensitivity: share of the diseased at or above it, with Wilson's interval over cases.
        normals_later: share of the others below it.
        cases_later: share of all cases below it, at the prevalence.
        ppv: share of the diseased among cases at or above it, at the prevalence.
        npv: share of the others among cases below it, at the prevalence.
        prevalence: the site's, or the sample's where nobody said.
        diseased: cases with the disease behind all this.
    """

    threshold: float
    given: bool
    sensitivity: Interval
    normals_later: Interval
    cases_later: Interval
    ppv: Interval
    npv: Interval
    prevalence: float
    diseased: int


def triage(
    truth: npt.ArrayLike,
    score: npt.ArrayLike,
    patients: Sequence[str],
    *,
    seed: int,
    sensitivity: float = SENSITIVITY,
    threshold: float | None = None,
    prevalence: float | None = None,
    resamples: int = 1000,
) -> Triage | None:
    """Figures of the threshold that keeps this sensitivity; None where one of the classes is missing.

    A threshold that is chosen on the same cases is chosen anew in every draw of the bootstrap, so that the
    intervals hold the uncertainty of the choice; the sensitivity itself is then too good by construction.

    Args:
        truth: (cases,) 1 diseased, 0 not, NaN unknown (left out).
        score: (cases,) the higher, the more likely diseased.
        patients: the patient of each case.
        seed: of the intervals.
        sensitivity: share of the diseased that must stay above the threshold.
        threshold: chosen on other cases; None chooses it on these.
        prevalence: share of diseased cases at the site; None takes the sample's.
        resamples: how often patients are drawn.
    """
    kind = np.asarray(truth, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(kind))
    diseased, values = kind[known] > 0.5, np.asarray(score, dtype=np.float64)[known]
    if not diseased.any() or diseased.all():
        return None
    share = float(diseased.mean()) if prevalence is None else prevalence
    ranking = Ranking(diseased, values)

    def statistics(weights: FloatArray) -> FloatArray:
        steps = ranking.steps(weights)
        rows = np.arange(len(weights))
        if threshold is None:
            place = np.argmax(steps.true >= (sensitivity - 1e-9) * steps.positives[:, np.newaxis], axis=1)
        else:
            place = np.full(len(weights), np.count_nonzero(ranking.thresholds >= threshold) - 1)
        above = np.where(place >= 0, steps.true[rows, place], 0.0)
        alarms = np.where(place >= 0, steps.false[rows, place], 0.0)
        found, cleared = _share(above, steps.positives), 1.0 - _share(alarms, steps.negatives)
        later = (1.0 - share) * cleared + share * (1.0 - found)
        ppv = _share(share * found, 1.0 - later)
        return np.stack([cleared, later, ppv, _share((1.0 - share) * cleared, later), found], axis=1)

    owners = [patients[int(number)] for number in known]
    cleared, later, ppv, npv, found = bootstrap_statistics(statistics, owners, seed=seed, resamples=resamples)
    count = int(diseased.sum())
    low, high = wilson(found.value * count, count)
    chosen = _threshold(ranking, sensitivity) if threshold is None else threshold
    kept = Interval(found.value, low, high, found.n)
    return Triage(chosen, threshold is not None, kept, cleared, later, ppv, npv, share, count)


def _threshold(ranking: Ranking, sensitivity: float) -> float:
    steps = ranking.steps()
    enough = steps.true[0] >= (sensitivity - 1e-9) * steps.positives[0]
    return float(ranking.thresholds[int(np.argmax(enough))])


def _share(above: FloatArray, below: FloatArray) -> FloatArray:
    result: FloatArray = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return result
