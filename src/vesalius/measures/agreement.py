"""How far predicted classes agree with the true ones, for many weightings of the same cases at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


class Confusions:
    """Pairs of true and predicted class.

    Args:
        truth: (cases,) class number from 0; below 0 where unknown (counts for nothing).
        predicted: (cases,) class number from 0; below 0 for no answer, which is wrong whatever the truth.
        classes: how many there are.
    """

    def __init__(self, truth: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> None:
        true, found = np.asarray(truth, dtype=np.intp), np.asarray(predicted, dtype=np.intp)
        self.classes = classes
        known = np.flatnonzero(true >= 0)
        columns = np.where(found[known] < 0, classes, found[known])  # the last column holds "no answer"
        self._known = known
        self._pairs = np.zeros((len(known), classes * (classes + 1)))
        self._pairs[np.arange(len(known)), true[known] * (classes + 1) + columns] = 1.0

    def counts(self, weights: FloatArray | None = None) -> FloatArray:
        """(draws, true classes, predicted classes and no answer)."""
        used = np.ones((1, len(self._known))) if weights is None else weights[:, self._known]
        return (used @ self._pairs).reshape(-1, self.classes, self.classes + 1)


def accuracy(counts: FloatArray) -> FloatArray:
    """(draws,) share of cases that are right, from counts (draws, true, predicted)."""
    right = np.trace(counts, axis1=1, axis2=2)
    return _ratio(right, counts.sum(axis=(1, 2)))


def balanced_accuracy(counts: FloatArray) -> FloatArray:
    """(draws,) mean over the classes that occur of the share of their cases that are right."""
    total = counts.sum(axis=2)
    right = np.diagonal(counts, axis1=1, axis2=2)
    recall = _ratio(right, total)
    present = total > 0
    return _ratio(np.where(present, recall, 0.0).sum(axis=1), present.sum(axis=1).astype(np.float64))


def kappa(counts: FloatArray, *, quadratic: bool) -> FloatArray:
    """(draws,) Cohen's kappa: agreement beyond chance (Cohen, Educ Psychol Meas 1960).

    With quadratic weights (Cohen, Psychol Bull 1968) being off by two grades is four times as bad as being
    off by one. A case without an answer counts as an answer that is off by the most that its true class allows.
    """
    classes = counts.shape[1]
    grades = np.arange(classes)
    off = np.abs(grades[:, np.newaxis] - grades[np.newaxis])
    cost = (off**2 if quadratic else off > 0).astype(np.float64)
    answered = counts[:, :, :classes].copy()
    answered[:, grades, np.argmax(cost, axis=1)] += counts[:, :, classes]
    rows, columns = answered.sum(axis=2), answered.sum(axis=1)
    observed = (answered * cost).sum(axis=(1, 2))
    expected = np.einsum("dt,tp,dp->d", rows, cost, columns)
    return 1.0 - _ratio(observed * answered.sum(axis=(1, 2)), expected)


def class_shares(counts: FloatArray, class_number: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(draws,) sensitivity, specificity and positive predictive value of one class against the others."""
    hits = counts[:, class_number, class_number]
    truly = counts[:, class_number].sum(axis=1)
    named = counts[:, :, class_number].sum(axis=1)
    others = counts.sum(axis=(1, 2)) - truly
    answered = others - _unanswered_others(counts, class_number)
    specificity = _ratio(answered - (named - hits), others)
    return _ratio(hits, truly), specificity, _ratio(hits, named)


def _unanswered_others(counts: FloatArray, class_number: int) -> FloatArray:
    """(draws,) cases of other classes without an answer: not cleared of this class, so not specific."""
    missing = counts[:, :, -1].sum(axis=1) - counts[:, class_number, -1]
    result: FloatArray = missing
    return result


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    result: FloatArray = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return result
