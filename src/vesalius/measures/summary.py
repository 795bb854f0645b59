"""From values per case and class to figures with intervals, per arm and for the difference between arms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vesalius.core.report import Metric, Score
from vesalius.measures.catalogue import MEASURES, Better
from vesalius.measures.intervals import RESAMPLES, bootstrap_means

OVERALL = "all"
MODEL = "model"
RIVAL = "rival"
DIFFERENCE = "difference"

Column = tuple[str, str, str]  # arm, measure, class
FloatArray = npt.NDArray[np.float64]


def summarise(scores: Sequence[Score], *, seed: int, resamples: int = RESAMPLES) -> tuple[Metric, ...]:
    """Means over cases with 95 % intervals over patients, for each arm, measure and class and for `all`.

    `all` is the mean over a case's classes, then over cases. Where a model and a rival were scored, the arm
    `difference` is model minus rival on the cases that both have a value for, with its paired interval.
    Quantities that are no measure of quality (volumes) are left out.

    Args:
        scores: the rows; their order decides the order of measures and classes.
        seed: the same seed and scores give the same intervals.
        resamples: how often patients are drawn.
    """
    judged = [score for score in scores if _judged(score.name)]
    if not judged:
        return ()
    columns, table, patients = _tabulate(judged)
    intervals = bootstrap_means(table, patients, seed=seed, resamples=resamples)
    return tuple(
        Metric(arm, name, class_name, interval.value, interval.low, interval.high, interval.n)
        for (arm, name, class_name), interval in zip(columns, intervals, strict=True)
        if interval is not None
    )


def find_metric(metrics: Sequence[Metric], arm: str, name: str, class_name: str = OVERALL) -> Metric | None:
    """The metric of this arm, measure and class, or None."""
    wanted = (arm, name, class_name)
    return next((metric for metric in metrics if (metric.arm, metric.name, metric.class_name) == wanted), None)


def overall_by_case(scores: Sequence[Score], arm: str, name: str) -> dict[str, float]:
    """Mean over classes of one arm's measure, by case; cases without a finite value are left out."""
    values: dict[str, list[float]] = {}
    for score in scores:
        if score.arm == arm and score.name == name and np.isfinite(score.value):
            values.setdefault(score.case, []).append(score.value)
    return {case: float(np.mean(found)) for case, found in values.items()}


def _judged(name: str) -> bool:
    return name not in MEASURES or MEASURES[name].better is not Better.NEITHER


def _tabulate(scores: Sequence[Score]) -> tuple[list[Column], FloatArray, list[str]]:
    """Scores as a matrix (cases, columns) with the columns `all` and `difference` added."""
    patients = {score.case: score.patient for score in scores}
    rows = {case: row for row, case in enumerate(patients)}
    arms, names, classes = (
        list(dict.fromkeys(values)) for values in zip(*((s.arm, s.name, s.class_name) for s in scores), strict=True)
    )
    cube = np.full((len(arms), len(names), len(classes), len(rows)), np.nan)
    for score in scores:
        place = arms.index(score.arm), names.index(score.name), classes.index(score.class_name)
        cube[(*place, rows[score.case])] = score.value
    if OVERALL not in classes:
        cube = np.concatenate([cube, _mean_of_known(cube)], axis=2)
        classes.append(OVERALL)
    if MODEL in arms and RIVAL in arms:
        difference = cube[arms.index(MODEL)] - cube[arms.index(RIVAL)]
        cube = np.concatenate([cube, difference[np.newaxis]], axis=0)
        arms.append(DIFFERENCE)
    columns = [(arm, name, class_name) for arm in arms for name in names for class_name in classes]
    return columns, cube.reshape(len(columns), len(rows)).T, list(patients.values())


def _mean_of_known(cube: FloatArray) -> FloatArray:
    """Mean over the class axis (2, kept) of the finite values; NaN where there is none."""
    known = np.isfinite(cube)
    count = known.sum(axis=2, keepdims=True)
    total = np.where(known, cube, 0.0).sum(axis=2, keepdims=True)
    means: FloatArray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means
