"""A detection's scores: what each candidate hits, as rows of cases, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.core.finding import Box
from vesalius.core.grid import FloatArray, Grid
from vesalius.core.report import Metric, Score
from vesalius.measures.free_response import RATES, FreeResponse
from vesalius.measures.intervals import bootstrap_statistics
from vesalius.measures.matching import box_agreement, centre_agreement, match
from vesalius.measures.proportion import wilson
from vesalius.measures.ranking import Ranking
from vesalius.measures.summary import DIFFERENCE, MODEL, OVERALL, RIVAL

RESAMPLES = 1000
_UNSEEN = float(-np.log(0.025))  # events that a Poisson count of none leaves possible (two-sided 95 %)
CRITERIA = {"centre": 0.0, "iou_10": 0.1, "iou_50": 0.5}  # agreement that counts as a hit, by criterion
RATE_NAMES = ("1_8", "1_4", "1_2", "1", "2", "4", "8")


@dataclass(frozen=True)
class Judged:
    """One image and class: candidates by falling score with what they hit under each criterion (see `match`)."""

    scores: tuple[float, ...]
    hits: Mapping[str, tuple[int, ...]]
    lesions: int


def judge(candidates: Sequence[tuple[float, Box]], lesions: Sequence[Box], grid: Grid) -> Judged:
    """What each candidate (score and box, by falling score) hits on one image."""
    boxes = [box for _, box in candidates]
    centres, overlaps = centre_agreement(boxes, lesions, grid), box_agreement(boxes, lesions, grid)
    hits = {name: tuple(match(centres if name == "centre" else overlaps, least)) for name, least in CRITERIA.items()}
    return Judged(tuple(score for score, _ in candidates), hits, len(lesions))


def case_values(images: Sequence[Judged]) -> dict[str, float]:
    """One case and class as named values: a few to read, then each candidate's score and what it hits.

    `candidate_01_centre` is the number of the lesion that the surest candidate finds (counted over the
    case's images), minus that number where a surer one had found it already, and 0 for a false alarm;
    `_iou_10` and `_iou_50` say the same for boxes that overlap by a tenth and by half.
    """
    rows: list[tuple[float, dict[str, int]]] = []
    before = 0
    for image in images:
        for place, score in enumerate(image.scores):
            own = {name: hits[place] for name, hits in image.hits.items()}
            rows.append((score, {name: int(np.sign(hit)) * (abs(hit) + before) for name, hit in own.items()}))
        before += image.lesions
    rows.sort(key=lambda row: -row[0])
    found = {hits["centre"]: score for score, hits in reversed(rows) if hits["centre"] > 0}
    alarm = max((score for score, hits in rows if hits["centre"] == 0), default=0.0)
    least = (min(found.values()) if len(found) == before else 0.0) if before else 1.0
    values = {
        "margin": least - alarm,
        "images": float(len(images)),
        "lesions": float(before),
        "found": float(len(found)),
        "candidates": float(len(rows)),
        "highest": max((score for score, _ in rows), default=0.0),
    }
    for number, (score, hits) in enumerate(rows, 1):
        values[f"candidate_{number:02d}_score"] = score
        values |= {f"candidate_{number:02d}_{name}": float(hit) for name, hit in hits.items()}
    return values


@dataclass(frozen=True)
class Candidates:
    """What one arm marked of one class: (candidates,) scores, owners (case numbers), and hits by criterion."""

    scores: FloatArray
    owners: FloatArray
    hits: Mapping[str, FloatArray]
    highest: FloatArray


@dataclass(frozen=True)
class Sample:
    """All arms on the same cases.

    Args:
        images: (cases,) looked over.
        lesions: by class, (cases,).
        arms: by arm and class.
    """

    cases: tuple[str, ...]
    patients: tuple[str, ...]
    classes: tuple[str, ...]
    images: FloatArray
    lesions: Mapping[str, FloatArray]
    arms: Mapping[str, Mapping[str, Candidates]]

    @classmethod
    def of(cls, scores: Sequence[Score], classes: Sequence[str]) -> Sample:
        """From the rows of cases and classes."""
        rows: dict[tuple[str, str, str], dict[str, float]] = {}
        for score in scores:
            rows.setdefault((score.arm, score.case, score.class_name), {})[score.name] = score.value
        arms = [arm for arm in (MODEL, RIVAL) if any(key[0] == arm for key in rows)]
        patients = {score.case: score.patient for score in scores}
        cases = [case for case in patients if all((arm, case, classes[0]) in rows for arm in arms)]
        first = arms[0] if arms else MODEL
        return cls(
            tuple(cases),
            tuple(patients[case] for case in cases),
            tuple(classes),
            np.array([rows[first, case, classes[0]]["images"] for case in cases], dtype=np.float64),
            {name: np.array([rows[first, case, name]["lesions"] for case in cases]) for name in classes},
            {arm: {name: _candidates([rows[arm, case, name] for case in cases]) for name in classes} for arm in arms},
        )

    def response(self, arm: str, name: str, criterion: str) -> FreeResponse:
        """The free-response list of one arm and class. Second marks on a lesion count for nothing under `centre`,
        as false alarms under the criteria of overlap."""
        one = self.arms[arm][name]
        again = np.nan if criterion == "centre" else 0.0
        hits = one.hits[criterion]
        kind = np.where(hits > 0, 1.0, np.where(hits < 0, again, 0.0))
        return FreeResponse(one.scores, kind, one.owners, self.lesions[name], self.images)


def _candidates(rows: Sequence[Mapping[str, float]]) -> Candidates:
    scores, owners = [], []
    hits: dict[str, list[float]] = {name: [] for name in CRITERIA}
    for owner, row in enumerate(rows):
        for number in range(1, int(row["candidates"]) + 1):
            scores.append(row[f"candidate_{number:02d}_score"])
            owners.append(owner)
            for name, values in hits.items():
                values.append(row[f"candidate_{number:02d}_{name}"])
    return Candidates(
        np.array(scores, dtype=np.float64),
        np.array(owners, dtype=np.float64),
        {name: np.array(values, dtype=np.float64) for name, values in hits.items()},
        np.array([row["highest"] for row in rows], dtype=np.float64),
    )


def metrics(sample: Sample, own: Mapping[str, float], *, seed: int, resamples: int = RESAMPLES) -> tuple[Metric, ...]:
    """Every figure of every arm and of their difference, with 95 % intervals over patients.

    `all` is the mean over the classes that occur; of false positives, over all that have a threshold.

    Args:
        sample: the scores.
        own: the model's own thresholds, by class.
        seed, resamples: of the bootstrap.
    """
    if not sample.cases or not sample.arms:
        return ()
    present = [name for name in sample.classes if sample.lesions[name].sum() > 0 or name in own]
    if not present:
        return ()
    figures = {
        (arm, name): _Figures(sample, arm, name, own.get(name) if arm == MODEL else None)
        for arm in sample.arms
        for name in present
    }
    names: list[tuple[str, str, str]] = []

    def statistics(weights: FloatArray) -> FloatArray:
        found: dict[tuple[str, str, str], FloatArray] = {}
        for arm in sample.arms:
            each = {name: figures[arm, name](weights) for name in present}
            for measure in dict.fromkeys(measure for found_of in each.values() for measure in found_of):
                held = [name for name in present if measure in each[name]]
                found |= {(arm, measure, name): each[name][measure] for name in held}
                found[arm, measure, OVERALL] = np.mean([each[name][measure] for name in held], axis=0)
        if {MODEL, RIVAL} <= set(sample.arms):
            found |= {
                (DIFFERENCE, *key[1:]): value - found[(RIVAL, *key[1:])]
                for key, value in found.items()
                if key[0] == MODEL and (RIVAL, *key[1:]) in found
            }
        names[:] = list(found)
        return np.stack(list(found.values()), axis=1)

    intervals = bootstrap_statistics(statistics, sample.patients, seed=seed, resamples=resamples)
    fewest = {name: int(sample.lesions[name].sum()) for name in present}
    rows = []
    for (arm, measure, name), interval in zip(names, intervals, strict=True):
        if not np.isfinite(interval.value):
            continue
        low, high = interval.low, interval.high
        if measure == "own_false_positives":
            high = max(high, _UNSEEN / float(sample.images.sum()))
        elif arm != DIFFERENCE and interval.n > 1 and low == high and interval.value in (0.0, 1.0):
            units = fewest.get(name, min(fewest.values()))  # drawing again cannot doubt a perfect figure
            low, high = wilson(interval.value * units, units)
        rows.append(Metric(arm, measure, name, interval.value, low, high, interval.n))
    order = list(dict.fromkeys(measure for _, measure, _ in names))
    return tuple(sorted(rows, key=lambda row: order.index(row.name)))


class _Figures:
    """The figures of one arm and class for any weighting of the cases; `own` is the arm's own threshold."""

    def __init__(self, sample: Sample, arm: str, name: str, own: float | None) -> None:
        self._lesions = sample.lesions[name].sum() > 0
        self._responses = {criterion: sample.response(arm, name, criterion) for criterion in CRITERIA}
        self._own = own
        has = sample.lesions[name] > 0
        self._ranking = Ranking(has, sample.arms[arm][name].highest) if 0 < has.sum() < len(has) else None

    def __call__(self, weights: FloatArray) -> dict[str, FloatArray]:
        curve = self._responses["centre"].curve(weights)
        at_own: dict[str, FloatArray] = {}
        if self._own is not None:
            sensitivity, alarms = curve.at_step(self._responses["centre"].above(self._own))
            at_own = {"own_sensitivity": sensitivity, "own_false_positives": alarms}
        if not self._lesions:
            return {name: values for name, values in at_own.items() if name == "own_false_positives"}
        found = {
            f"sensitivity_at_{name}_fp": curve.sensitivity_at(rate)
            for name, rate in zip(RATE_NAMES, RATES, strict=True)
        }
        primary = {"sensitivity_at_2_fp": found["sensitivity_at_2_fp"]}
        found = primary | {"cpm": curve.cpm(), "ap_centre": curve.average_precision()} | found
        for criterion in ("iou_10", "iou_50"):
            name = criterion.replace("iou", "ap")
            found[name] = self._responses[criterion].curve(weights).average_precision()
        found |= at_own
        if self._ranking is not None:
            found["auroc"] = self._ranking.steps(weights).auroc()
        return found
