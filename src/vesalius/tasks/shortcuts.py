"""Leaks and shortcuts, looked for before fitting: what would make a model look better than it is.

A leak is a patient or a picture on both sides of the split. A shortcut is a target that can be guessed from
what has nothing to do with the disease (Geirhos et al., Nature Machine Intelligence 2020; DeGrave, Janizek
and Lee, ibid. 2021): from the size of the image, its rim, marks burned into it, or its header. A small model
that sees nothing but these is cross-validated by patient; where it beats chance beyond what several looks
explain, the report says so with the figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import VesaliusError
from vesalius.core.grid import FloatArray
from vesalius.core.progress import Progress
from vesalius.core.protocols import Fitted
from vesalius.core.report import Table
from vesalius.imaging.marks import unmarked
from vesalius.measures.intervals import Interval, bootstrap_statistics
from vesalius.measures.ranking import Ranking
from vesalius.measures.target import Target
from vesalius.measures.verdict import listed
from vesalius.tasks.shortcut_features import ALL, GROUPS, as_table, case_features, common_words

MOST_CASES = 400  # that the small model sees
_FEWEST_CASES = 60  # that it sees even where each is large
_MOST_VOXELS = 1e9  # that are read for it, where more than the fewest cases are
_LEAST_PATIENTS = 10  # of a class, for the small model
_FOLDS = 5
_ERROR = 0.05  # chance of any false warning, shared among the looks
_RESAMPLES = 1000
_SCATTER = 1.25  # how much wider cross-validated areas scatter than drawing cases anew shows, measured on noise
_CARE = "A model may have learned this instead of what is asked; look where it comes from before believing its figures."


Learner = Callable[[Cohort, Sequence[Case], Any, Path, Progress, Target], Fitted]


@dataclass(frozen=True)
class Look:
    """How well the target can be guessed from one group of features: AUROC with its adjusted interval."""

    group: str
    auroc: Interval

    @property
    def warns(self) -> bool:
        """Whether chance does not explain it."""
        return self.auroc.low > 0.5


@dataclass(frozen=True)
class Shortcuts:
    """What the checks found.

    Args:
        sentences: warnings first; always at least one.
        table: one row per group of features; None where the small model could not be tried.
        warns: whether any of it is a warning.
    """

    sentences: tuple[str, ...]
    table: Table | None
    warns: bool

    def as_json(self) -> dict[str, Any]:
        """What a card keeps."""
        table = self.table
        kept = None if table is None else {"title": table.title, "columns": table.columns, "rows": table.rows}
        return {"sentences": list(self.sentences), "table": kept, "warns": self.warns}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Shortcuts:
        """What `as_json` described."""
        table = data.get("table")
        kept = table and Table(table["title"], tuple(table["columns"]), tuple(tuple(row) for row in table["rows"]))
        return cls(tuple(data["sentences"]), kept or None, bool(data["warns"]))


def learn_after_checks(
    learner: Learner,
    cohort: Cohort,
    train: Sequence[Case],
    settings: Any,
    work: Path,
    progress: Progress,
    target: Target,
) -> Fitted:
    """Look for shortcuts, say what was found, then learn in the time that is left; the card keeps the findings.

    Args:
        learner: takes the cohort, cases, settings, work folder, progress and target.
        cohort, train, settings, work, progress: as for `Task.learn`.
        target: what is asked.
    """
    started = time.monotonic()
    seen = [unmarked(case) for case in train] if settings.hide_marks else train
    found = check_shortcuts(cohort, seen, target, settings.seed)
    for sentence in found.sentences:
        progress.say(sentence)
    minutes = settings.minutes - (time.monotonic() - started) / 60
    fitted = learner(cohort, train, replace(settings, minutes=minutes), work, progress, target)
    return replace(fitted, card={**fitted.card, "shortcuts": found.as_json()})


def check_shortcuts(cohort: Cohort, cases: Sequence[Case], target: Target, seed: int) -> Shortcuts:
    """Look for leaks in the cohort and for shortcuts to the target in its cases.

    Args:
        cohort: its stored hashes and split are compared; nothing of them where it is not stored.
        cases: those that are learned from; at most `MOST_CASES` of them are read, drawn by patient.
        target: what is asked; for places, whether a case has any.
        seed: of the draw, of the small model and of the intervals.
    """
    leaks = _leaks(cohort, target)
    looks, remark = _looks(cohort, cases, target, seed)
    warned = [look for look in looks if look.warns]
    sentences = [*leaks, *_warnings(warned)]
    if looks and not warned:
        best = max(looks, key=lambda look: look.auroc.value)
        sentences.append(
            f"No shortcut shown: {listed(list(GROUPS))} alone do not tell {target.name} apart beyond chance (at best "
            f"{best.group}: AUROC {best.auroc.value:.2f}, {best.auroc.low:.2f} to {best.auroc.high:.2f})."
        )
    sentences += [remark] if remark else []
    return Shortcuts(tuple(sentences), _table(looks), bool(warned or leaks))


def _warnings(warned: Sequence[Look]) -> list[str]:
    """One sentence for all groups that warn; the sum of them is named only where none of its parts warns."""
    parts = [look for look in warned if look.group != ALL] or list(warned)
    if not parts:
        return []
    figures = [
        f"{look.group} (AUROC {look.auroc.value:.2f}, {look.auroc.low:.2f} to {look.auroc.high:.2f})" for look in parts
    ]
    return [f"Warning: the target can be guessed without looking at the content, from {listed(figures)}. {_CARE}"]


def _table(looks: Sequence[Look]) -> Table | None:
    if not looks:
        return None
    rows = tuple(
        (look.group, look.auroc.value, look.auroc.low, look.auroc.high, "yes" if look.warns else "no") for look in looks
    )
    title = f"What the target can be guessed from (intervals adjusted for {len(looks)} looks)"
    return Table(title, ("Seen alone", "AUROC", "from", "to", "Warns"), rows)


def _leaks(cohort: Cohort, target: Target) -> list[str]:
    """Pictures of different patients that look alike, across the parts of the split and across classes."""
    if not (cohort.folder / "cohort.sqlite").exists():
        return []
    from vesalius.imaging.duplicates import near_duplicates
    from vesalius.store.cohort import image_hashes

    stored = image_hashes(cohort.folder)
    pairs = near_duplicates({image: value for image, (_, _, value) in stored.items()})
    apart = [(stored[a], stored[b]) for a, b in pairs if stored[a][1] != stored[b][1]]
    if not apart:
        return []
    parts = cohort.split.parts if cohort.split else {}
    across = sum(1 for a, b in apart if parts.get(a[1]) and parts.get(b[1]) and parts[a[1]] != parts[b[1]])
    truth = {case.id: _truth(target, case) for case in cohort}
    unlike = [(truth.get(a[0]), truth.get(b[0])) for a, b in apart]
    differing = sum(1 for a, b in unlike if a is not None and b is not None and a != b)
    found = []
    if across:
        found.append(
            f"Warning: {_pairs(across)} of images that look alike {_stand(across)} in both the training and the test "
            "part, so the figures may be too good. They are measured without them too, where the split was given."
        )
    if differing:
        found.append(
            f"Warning: {_pairs(differing)} of images that look alike {_have(differing)} different truth for "
            f"{target.name}. One of each pair may be labelled wrong."
        )
    return found


def _truth(target: Target, case: Case) -> tuple[float, ...] | None:
    if target.kind != "places":
        return target.value(case)
    places = target.places(case)
    return (float(any(places.values())),) if places else None


def _looks(cohort: Cohort, cases: Sequence[Case], target: Target, seed: int) -> tuple[list[Look], str]:
    """One look for each group of features that varies, and all together; or why there is none."""
    drawn, truth = _drawn(cases, target, seed)
    if not len(truth):
        return [], f"Shortcuts were not looked for: fewer than {_LEAST_PATIENTS} patients of each class."
    attributes: dict[str, dict[str, str | float]] = {}
    if (cohort.folder / "cohort.sqlite").exists():
        from vesalius.store.cohort import image_attributes

        attributes = image_attributes(cohort.folder)
    words = common_words(attributes)
    kept = {
        image: {name: value for name, value in found.items() if not isinstance(value, str) or value in words[name]}
        for image, found in attributes.items()
    }
    features, readable = [], []
    for row, case in enumerate(drawn):
        try:
            features.append(case_features(case, kept))
            readable.append(row)
        except VesaliusError:
            continue  # learning sets the case aside with its reason; here it is only not counted
    patients = [drawn[row].patient for row in readable]
    tables = {group: as_table(features, group) for group in (*GROUPS, ALL)}
    varying = {group: table for group, table in tables.items() if table.size}
    if varying:
        confidence = 1.0 - 2.0 * _ERROR / len(varying)  # a warning looks at the lower end only
        looks = [
            Look(group, _guessed(table, truth[readable], patients, seed, confidence))
            for group, table in varying.items()
        ]
        return [look for look in looks if np.isfinite(look.auroc.value)], ""
    return [], "Shortcuts: image size, range, border, marks and header are the same in every case."


def _drawn(cases: Sequence[Case], target: Target, seed: int) -> tuple[list[Case], FloatArray]:
    """Up to `MOST_CASES` cases, whole patients, with their truth (cases, columns); columns too rare are left out."""
    known = [(case, truth) for case in cases if (truth := _truth(target, case)) is not None]
    order = np.random.default_rng(seed).permutation(sorted({case.patient for case, _ in known}))
    by_patient: dict[str, list[tuple[Case, tuple[float, ...]]]] = {}
    for case, truth in known:
        by_patient.setdefault(case.patient, []).append((case, truth))
    sizes = [float(np.prod(image.grid.shape)) for case, _ in known for image in case.images] or [1.0]
    most = min(MOST_CASES, max(_FEWEST_CASES, round(_MOST_VOXELS / np.median(sizes))))
    drawn: list[tuple[Case, tuple[float, ...]]] = []
    for patient in order:
        if len(drawn) >= most:
            break
        drawn += by_patient[patient]
    table = np.array([truth for _, truth in drawn], dtype=np.float64).reshape(len(drawn), -1)
    enough = [
        column
        for column in range(table.shape[1])
        if min(
            len({case.patient for (case, _), value in zip(drawn, table[:, column], strict=True) if value == side})
            for side in (0.0, 1.0)
        )
        >= _LEAST_PATIENTS
    ]
    if table.shape[1] == 2 and target.kind == "binary":
        enough = enough[-1:]  # the two columns say the same
    return [case for case, _ in drawn], table[:, enough] if enough else np.zeros((0, 0))


def _guessed(table: FloatArray, truth: FloatArray, patients: Sequence[str], seed: int, confidence: float) -> Interval:
    """Mean AUROC over the columns of truth, of guesses that were cross-validated by patient."""
    guesses = np.stack([_cross_validated(table, column, patients, seed) for column in truth.T])
    rankings = [Ranking(column, guess) for column, guess in zip(truth.T, guesses, strict=True)]

    def statistics(weights: FloatArray) -> FloatArray:
        areas: FloatArray = np.mean([one.steps(weights).auroc() for one in rankings], axis=0)
        return areas[:, np.newaxis]

    found = bootstrap_statistics(statistics, patients, seed=seed, resamples=_RESAMPLES, confidence=confidence)[0]
    low = max(0.0, found.value - _SCATTER * (found.value - found.low))
    return Interval(found.value, low, min(1.0, found.value + _SCATTER * (found.high - found.value)), found.n)


def _cross_validated(table: FloatArray, truth: FloatArray, patients: Sequence[str], seed: int) -> FloatArray:
    """(cases,) log odds by shallow boosted trees that did not see the case's patient."""
    from sklearn.model_selection import StratifiedGroupKFold

    from vesalius.classical.trees import BoostSettings, boosted_classes

    settings = BoostSettings(trees=60, rate=0.1, depth=2, leaf=5)
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    guess = np.zeros(len(truth))
    for train, held in folds.split(table, truth, patients):
        labels = truth[train].astype(int)
        if len(set(labels)) < 2:
            continue
        guess[held] = boosted_classes(table[train], labels, settings, seed).scores(table[held])[:, 1]
    return guess


def _pairs(count: int) -> str:
    return "one pair" if count == 1 else f"{count} pairs"


def _stand(count: int) -> str:
    return "stands" if count == 1 else "stand"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
