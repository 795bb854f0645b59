"""A classification's scores as arrays, and the figures that follow from them for any weighting of the cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.core.grid import FloatArray
from vesalius.core.report import Metric, Score
from vesalius.measures.agreement import Confusions, accuracy, balanced_accuracy, class_shares, kappa
from vesalius.measures.intervals import Interval, bootstrap_statistics
from vesalius.measures.proportion import wilson
from vesalius.measures.ranking import Ranking
from vesalius.measures.reliability import Reliability
from vesalius.measures.summary import DIFFERENCE, MODEL, OVERALL, RIVAL
from vesalius.measures.target import Target

RESAMPLES = 1000
_NEGATIVE = frozenset({"0", "no", "false", "negative", "normal", "benign", "healthy", "control", "none", "absent"})

Columns = dict[tuple[str, str], FloatArray]  # (measure, class) to values (draws,)


@dataclass(frozen=True)
class Answers:
    """What one arm said of every case.

    Args:
        probability, truth, predicted: (cases, classes); truth is NaN where unknown.
    """

    probability: FloatArray
    truth: FloatArray
    predicted: FloatArray


@dataclass(frozen=True)
class Sample:
    """All arms on the same cases."""

    cases: tuple[str, ...]
    patients: tuple[str, ...]
    arms: dict[str, Answers]

    @classmethod
    def of(cls, scores: Sequence[Score], classes: Sequence[str]) -> Sample:
        """From the rows of cases and classes; a case that an arm has no rows for is left out for every arm."""
        rows = {(score.arm, score.case, score.class_name, score.name): score.value for score in scores}
        arms = [arm for arm in (MODEL, RIVAL) if any(score.arm == arm for score in scores)]
        patients = {score.case: score.patient for score in scores}
        cases = [case for case in patients if all((arm, case, classes[0], "truth") in rows for arm in arms)]

        def table(arm: str, name: str) -> FloatArray:
            found = [[rows.get((arm, case, one, name), np.nan) for one in classes] for case in cases]
            return np.array(found, dtype=np.float64).reshape(len(cases), len(classes))

        answers = {arm: Answers(*(table(arm, name) for name in ("probability", "truth", "predicted"))) for arm in arms}
        return cls(tuple(cases), tuple(patients[case] for case in cases), answers)


def named_negative(name: str) -> bool:
    """Whether a class is named like the absence of what is looked for."""
    return name.casefold() in _NEGATIVE


def positive_class(classes: Sequence[str]) -> int:
    """Which of two classes is the one to be found: the one whose name is not that of a normal state, else the last."""
    others = [number for number, name in enumerate(classes) if not named_negative(name)]
    return others[0] if len(others) == 1 else len(classes) - 1


def class_title(target: Target, number: int) -> str:
    """What readers call a class: a number is told with the target that it is a value of."""
    name = target.classes[number]
    return f"{target.name} {name}" if name.replace(".", "", 1).lstrip("-").isdigit() else name


def judged_classes(target: Target) -> list[int]:
    """The classes that have figures of their own: the one to be found of two, else every one."""
    return [positive_class(target.classes)] if target.kind == "binary" else list(range(len(target.classes)))


def class_numbers(table: FloatArray) -> list[int]:
    """The class of each row of a (cases, classes) table of 0 and 1, -1 where there is none."""
    return [int(np.argmax(row)) if np.nanmax(row, initial=0.0) > 0.5 else -1 for row in table]


def metrics(sample: Sample, target: Target, *, seed: int, resamples: int = RESAMPLES) -> tuple[Metric, ...]:
    """Every figure of every arm and of their difference, with 95 % intervals over patients."""
    if not sample.cases or not sample.arms:
        return ()
    figures = {arm: Figures(answers, target) for arm, answers in sample.arms.items()}
    names: list[tuple[str, str, str]] = []

    def statistics(weights: FloatArray) -> FloatArray:
        found = {arm: one(weights) for arm, one in figures.items()}
        if MODEL in found and RIVAL in found:
            shared = found[MODEL].keys() & found[RIVAL].keys()
            found[DIFFERENCE] = {key: found[MODEL][key] - found[RIVAL][key] for key in found[MODEL] if key in shared}
        names[:] = [(arm, *key) for arm, columns in found.items() for key in columns]
        return np.stack([column for columns in found.values() for column in columns.values()], axis=1)

    intervals = bootstrap_statistics(statistics, sample.patients, seed=seed, resamples=resamples)
    units = {arm: one.units for arm, one in figures.items()}
    rows = [
        Metric(arm, name, class_name, *_widened(interval, units.get(arm, {}).get((name, class_name), 0)))
        for (arm, name, class_name), interval in zip(names, intervals, strict=True)
        if np.isfinite(interval.value)
    ]
    order = list(dict.fromkeys(name for _, name, _ in names))
    return tuple(sorted(rows, key=lambda row: order.index(row.name)))


def _widened(interval: Interval, units: int) -> tuple[float, float, float, int]:
    """Drawing again cannot doubt a perfect figure; Wilson's interval of as many shares can."""
    low, high = interval.low, interval.high
    if units and interval.n > 1 and low == high and interval.value in (0.0, 1.0):
        low, high = wilson(interval.value * units, units)
    return interval.value, low, high, interval.n


class Figures:
    """The figures of one arm for any weighting of the cases."""

    def __init__(self, answers: Answers, target: Target) -> None:
        self.target = target
        self.numbers = [
            number
            for number in judged_classes(target)
            if np.any(answers.truth[:, number] > 0.5) and np.any(answers.truth[:, number] < 0.5)
        ]
        self._rankings = {n: Ranking(answers.truth[:, n], answers.probability[:, n]) for n in self.numbers}
        self._reliability = {n: Reliability(answers.truth[:, n], answers.probability[:, n]) for n in self.numbers}
        self._confusions = self._pairs(answers)
        self.units = self._units(answers)

    def __call__(self, weights: FloatArray) -> Columns:
        """Every figure by measure and class; `all` is the mean over classes where a class has its own."""
        by_class = {number: self._of_class(number, weights) for number in self.numbers}
        found: Columns = {}
        for name in next(iter(by_class.values()), {}):
            for number in self.numbers:
                found[name, self.target.classes[number]] = by_class[number][name]
            found[name, OVERALL] = np.mean([by_class[number][name] for number in self.numbers], axis=0)
        if self.target.kind != "multilabel":
            counts = self._confusions[-1].counts(weights)
            found["accuracy", OVERALL] = accuracy(counts)
            found["balanced_accuracy", OVERALL] = balanced_accuracy(counts)
            quadratic = self.target.kind == "ordinal"
            found["kappa_quadratic" if quadratic else "kappa", OVERALL] = kappa(counts, quadratic=quadratic)
        return found

    def _of_class(self, number: int, weights: FloatArray) -> dict[str, FloatArray]:
        steps = self._rankings[number].steps(weights)
        single = self.target.kind != "multilabel"
        counts = self._confusions[-1 if single else number].counts(weights)
        sensitivity, specificity, _ = class_shares(counts, number if single else 1)
        found = {
            "auroc": steps.auroc(),
            "auprc": steps.auprc(),
            "sensitivity_at_specificity_90": steps.sensitivity_at(0.9),
            "specificity_at_sensitivity_90": steps.specificity_at(0.9),
            "sensitivity": sensitivity,
            "specificity": specificity,
            "brier": self._reliability[number].brier(weights),
            "ece": self._reliability[number].calibration_error(weights),
        }
        return found if single else found | {"balanced_accuracy": (sensitivity + specificity) / 2.0}

    def _pairs(self, answers: Answers) -> dict[int, Confusions]:
        """True and predicted class: of each label where there are several at once, else one under -1."""
        if self.target.kind != "multilabel":
            truth, found = class_numbers(answers.truth), class_numbers(answers.predicted)
            return {-1: Confusions(truth, found, len(self.target.classes))}
        pairs = {}
        for number in self.numbers:
            known = np.where(np.isfinite(answers.truth[:, number]), answers.truth[:, number], -1)
            pairs[number] = Confusions(np.rint(known), np.rint(np.nan_to_num(answers.predicted[:, number])), 2)
        return pairs

    def _units(self, answers: Answers) -> dict[tuple[str, str], int]:
        """How many cases a figure is a share of; the smaller group for those of two groups."""
        found = {}
        for number in self.numbers:
            truth = answers.truth[:, number]
            positives, negatives = int(np.sum(truth > 0.5)), int(np.sum(truth < 0.5))
            fewer = min(positives, negatives)
            by_name = {"sensitivity": positives, "specificity": negatives, "auroc": fewer, "auprc": fewer}
            by_name |= {"sensitivity_at_specificity_90": fewer, "specificity_at_sensitivity_90": fewer}
            for name, units in by_name.items():
                found[name, self.target.classes[number]] = units
                found[name, OVERALL] = min(units, found.get((name, OVERALL), units))
        found["accuracy", OVERALL] = len(answers.truth)
        found["balanced_accuracy", OVERALL] = min((found[k] for k in found if k[0] == "auroc"), default=0)
        return found
