"""Fit what scores candidates out of fold, and keep only what helps there.

The second look comes first, then the second opinion, then what the case's other views say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from vesalius.core.grid import Array
from vesalius.inference.candidates import Candidates
from vesalius.inference.other_views import FEATURES as OF_VIEWS
from vesalius.inference.other_views import OtherViews, has_partner, pose_of, tables_of
from vesalius.inference.second_look import FEATURES, SecondLook
from vesalius.inference.second_opinion import SecondOpinion, joined
from vesalius.learning.detect_data import LookedOver
from vesalius.learning.detect_lesson import hits
from vesalius.measures.triage import SENSITIVITY

ALARMS_PER_IMAGE = (0.5, 1.0, 2.0, 4.0)  # false positives per image at which sensitivities are averaged
_FOLDS, _REPEATS = 5, 3
_LEAST_HITS = 12  # fewer hit lesions cannot carry more than the heat alone
_LEAST_GAIN = 1.0  # lesions that the other views must find more, on average over the rates, to count
_STRENGTH = 0.02  # C of the logistic regression: features are many, lesions few
_TREES = {"n_estimators": 80, "learning_rate": 0.05, "max_depth": 2, "subsample": 0.6, "min_samples_leaf": 20}
_TREE_ROWS = 8000  # candidates that a tree is grown from, at most


class Scorer(Protocol):
    """Something that was fitted to a table and what of it hits."""

    def scores(self, table: Array) -> Array:
        """Probability (n,) of each row."""
        ...


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates of one class on one image, found by a network that never saw its patient.

    Args:
        image: with its lesions.
        of_class: from 0.
        found: the candidates.
        table: their features.
        marks: of hand-designed filters that never saw the patient either; None where there are none.
    """

    image: LookedOver
    of_class: int
    found: Candidates
    table: Array
    marks: Candidates | None = None

    @cached_property
    def hit(self) -> Array:
        """(n, lesions) which candidate lies in which lesion of the class."""
        rows = [hits(self.image, place, self.of_class) for place in self.found.centres]
        return np.array(rows, bool).reshape(len(self.found), len(self.image.classes))


@dataclass(frozen=True)
class Scoring:
    """How candidates are scored.

    Args:
        look: what the network and the image say of them; None for the bare heat.
        opinion: how the filters' marks count; None where they do not help.
        others: how the case's other views count; None where they do not help.
        said: what was measured, in words.
        alarms: of each class (from 0), the scores that leave as many false positives per image as
            `ALARMS_PER_IMAGE` says.
        triage: score that the surest mark of 99 % of the cases with a lesion reaches; None without such cases.
    """

    look: SecondLook | None
    opinion: SecondOpinion | None
    others: OtherViews | None
    said: tuple[str, ...]
    alarms: tuple[tuple[float, ...], ...] = ()
    triage: float | None = None


@dataclass(frozen=True, eq=False)
class Turn:
    """Candidates and their scores (n,) by classifiers that never saw the patients, from one deal of the patients."""

    items: Sequence[Judged]
    scores: Sequence[Array]


def fit_scoring(judged: Sequence[Judged], seed: int, together: bool = True) -> Scoring:
    """What does best on patients that it was not fitted on.

    Args:
        judged: candidates of every image and class.
        seed: of how patients are dealt out.
        together: whether the images of a case will be given together at the bedside.
    """
    truth = _hits(judged)
    lesions = int(sum(item.hit.any(0).sum() for item in judged))
    if truth.all() or not truth.any():
        nothing = "The candidates are scored by the heat alone: there was nothing to learn from."
        return Scoring(None, None, None, (nothing,))
    ways: dict[str, Callable[[Array, Array], SecondLook]] = {"the heat alone": heat_only}
    if lesions >= _LEAST_HITS:
        ways |= {
            "heat and features, regression": lambda table, hit: regression(table, hit),
            "heat and features, regression and trees": lambda table, hit: with_trees(table, hit, seed),
        }
    outside = {
        name: [Turn(judged, _outside(judged, fit, seed + turn)) for turn in range(_REPEATS)]
        for name, fit in ways.items()
    }
    measured = {name: _mean_of(turns) for name, turns in outside.items()}
    best = max(measured, key=lambda name: float(np.mean(measured[name])))
    table = np.concatenate([item.table for item in judged])
    said = [_sentence(name, found) for name, found in measured.items()]
    said.append(f"Candidates are scored by {best}.")
    opinion, others = None, None
    turns: Sequence[Turn] = outside[best]
    if lesions >= _LEAST_HITS and all(item.marks is not None for item in judged):
        opinion, turns = _fit_opinion(turns, said)
    if lesions >= _LEAST_HITS and together:
        others, turns = _fit_others(turns, seed, said)
    alarms = tuple(_alarm_scores(turns, number) for number in sorted({item.of_class for item in judged}))
    return Scoring(ways[best](table, truth), opinion, others, tuple(said), alarms, _triage_score(turns))


def _fit_opinion(turns: Sequence[Turn], said: list[str]) -> tuple[SecondOpinion | None, Sequence[Turn]]:
    """How the filters' marks count where they help, and what is found with them; adds to what is said."""
    marks = [item.marks for item in turns[0].items if item.marks is not None]
    alone = [replace(item, found=mark) for item, mark in zip(turns[0].items, marks, strict=True)]
    together = []
    for turn in turns:
        ours = zip(turn.items, turn.scores, strict=True)
        each = [joined(item.found, score, mark) for (item, score), mark in zip(ours, marks, strict=True)]
        items = [replace(item, found=every) for item, (every, _) in zip(turn.items, each, strict=True)]
        together.append(Turn(items, [total for _, total in each]))
    both = _mean_of(together)
    said.append(_sentence("hand-designed filters alone", sensitivities(alone, [mark.heat for mark in marks])))
    said.append(_sentence("both together", both))
    if float(both.mean()) <= float(_mean_of(turns).mean()):
        said.append("The filters' opinion does not count, as it did not help.")
        return None, turns
    said.append("The filters' opinion counts as much as these.")
    totals = np.concatenate([total for turn in together for total in turn.scores])
    slope, bias = _logistic(totals[:, None], _hits([item for turn in together for item in turn.items]), 1.0)
    opinion = SecondOpinion(max(float(slope[0]), 1e-3), bias)
    return opinion, [Turn(turn.items, [opinion.scores(total) for total in turn.scores]) for turn in together]


def _fit_others(turns: Sequence[Turn], seed: int, said: list[str]) -> tuple[OtherViews | None, Sequence[Turn]]:
    """How the opposite breast and the other view of the same count where they help, and what is found with them.

    Adds to what is said.
    """
    tabled = _with_other_views(turns)
    seen = [bool(has_partner(item.table).any()) for item in tabled[0]]
    if sum(item.hit.any(0).sum() for item, there in zip(tabled[0], seen, strict=True) if there) < _LEAST_HITS:
        return None, turns
    outside = [Turn(items, _outside(items, beside_others, seed + turn)) for turn, items in enumerate(tabled)]
    said.append(_sentence("with the opposite breast and other views of the same", _mean_of(outside)))
    lesions = sum(int((item.image.classes == item.of_class).sum()) for item in tabled[0])
    if lesions * float((_mean_of(outside) - _mean_of(turns)).mean()) < _LEAST_GAIN:
        said.append("The other views do not count, as they did not help.")
        return None, turns
    said.append("The other views count.")
    every = [item for items in tabled for item in items]
    # Each mark is there once for each turn, which must not count as more marks than were measured with.
    table = np.concatenate([item.table for item in every])
    return beside_others(table, _hits(every), _STRENGTH / len(tabled)), outside


def _with_other_views(turns: Sequence[Turn]) -> list[list[Judged]]:
    """The candidates of each turn, with what the other images of their case say as their table."""
    groups: dict[tuple[str, int], list[int]] = {}
    for number, item in enumerate(turns[0].items):
        groups.setdefault((item.image.case, item.of_class), []).append(number)
    images = {turns[0].items[number].image for numbers in groups.values() if len(numbers) > 1 for number in numbers}
    poses = {image: pose_of(image.role, image.seen) for image in images}
    tabled = []
    for turn in turns:
        tables: dict[int, Array] = {}
        for numbers in groups.values():
            items = [turn.items[number] for number in numbers]
            scores = [turn.scores[number] for number in numbers]
            found = tables_of([poses.get(item.image) for item in items], [item.found for item in items], scores)
            tables |= dict(zip(numbers, found, strict=True))
        tabled.append([replace(item, table=tables[number]) for number, item in enumerate(turn.items)])
    return tabled


def _alarm_scores(turns: Sequence[Turn], of_class: int) -> tuple[float, ...]:
    """Scores of a class above which there are so many false positives per image, the mean of the turns."""
    found = []
    for turn in turns:
        ours = [(item, score) for item, score in zip(turn.items, turn.scores, strict=True) if item.of_class == of_class]
        wrong = np.sort(np.concatenate([score[~item.hit.any(1)] for item, score in ours]))[::-1]
        allowed = [int(rate * len(ours)) for rate in ALARMS_PER_IMAGE]
        found.append([wrong[count] if count < len(wrong) else 0.0 for count in allowed])
    return tuple(float(score) for score in np.mean(found, axis=0))


def _triage_score(turns: Sequence[Turn]) -> float | None:
    """Score that the surest mark of nearly every case with a lesion reaches, the mean of the turns."""
    found = []
    for turn in turns:
        surest: dict[str, float] = {}
        sick = {item.image.case for item in turn.items if len(item.image.classes)}
        for item, score in zip(turn.items, turn.scores, strict=True):
            if item.image.case in sick:
                surest[item.image.case] = max(surest.get(item.image.case, 0.0), float(score.max(initial=0.0)))
        if not surest:
            return None
        found.append(sorted(surest.values())[int((1 - SENSITIVITY) * len(surest))])
    return float(np.mean(found))


def _hits(items: Sequence[Judged]) -> Array:
    return np.concatenate([item.hit.any(1) for item in items])


def _mean_of(turns: Sequence[Turn]) -> Array:
    """Sensitivities, the mean of the turns."""
    found: Array = np.mean([sensitivities(turn.items, turn.scores) for turn in turns], axis=0)
    return found


def _sentence(name: str, found: Array) -> str:
    each = ", ".join(f"{value:.2f} at {rate:g}" for value, rate in zip(found, ALARMS_PER_IMAGE, strict=True))
    return f"Out of fold, {name}: sensitivity {each} false positives per image."


def _outside(judged: Sequence[Judged], fit: Callable[[Array, Array], Scorer], seed: int) -> list[Array]:
    """Scores of every item by classifiers that never saw its patient."""
    patients = sorted({item.image.patient for item in judged})
    order = np.random.default_rng(seed).permutation(len(patients))
    fold = {patients[n]: place % _FOLDS for place, n in enumerate(order)}
    scores: list[Array] = [np.zeros(0)] * len(judged)
    for number in range(_FOLDS):
        inner = [item for item in judged if fold[item.image.patient] != number]
        truth = _hits(inner) if inner else np.zeros(0, bool)
        if not truth.any() or truth.all():
            continue
        look = fit(np.concatenate([item.table for item in inner]), truth)
        for place, item in enumerate(judged):
            if fold[item.image.patient] == number:
                scores[place] = look.scores(item.table)
    return [
        score if len(score) == len(item.found) else item.found.heat for score, item in zip(scores, judged, strict=True)
    ]


def sensitivities(judged: Sequence[Judged], scores: Sequence[Array]) -> Array:
    """Share of lesions found at each of `ALARMS_PER_IMAGE`; a second hit on a lesion counts as nothing."""
    rows, lesions = [], 0
    for item, score in zip(judged, scores, strict=True):
        mine = item.image.classes == item.of_class
        found = np.zeros(len(mine), bool)
        lesions += int(mine.sum())
        hit = item.hit
        for number in np.argsort(-score, kind="stable"):
            new = int((hit[number] & ~found).sum())
            found |= hit[number]
            if new or not hit[number].any():
                rows.append((score[number], new))
    rows.sort(key=lambda row: -row[0])
    right = np.cumsum([new for _, new in rows])
    wrong = np.cumsum([new == 0 for _, new in rows]) / max(1, len({item.image.image for item in judged}))
    at = [right[wrong <= rate][-1] if (wrong <= rate).any() else 0 for rate in ALARMS_PER_IMAGE]
    return np.array(at) / max(1, lesions)


def heat_only(table: Array, truth: Array) -> SecondLook:
    """The heat, brought to a probability; its order is kept."""
    weights = np.zeros(len(FEATURES))
    slope, bias = _logistic(table[:, :1], truth, 1.0)
    weights[0] = max(float(slope[0]), 1e-3)
    return SecondLook(np.zeros(len(FEATURES)), np.ones(len(FEATURES)), weights, bias)


def regression(table: Array, truth: Array) -> SecondLook:
    """Logistic regression on all features."""
    mean, scale = table.mean(0), np.maximum(table.std(0), 1e-6)
    weights, bias = _logistic((table - mean) / scale, truth, _STRENGTH)
    return SecondLook(mean, scale, weights, bias)


def with_trees(table: Array, truth: Array, seed: int, share: float = 0.5) -> SecondLook:
    """The regression, and boosted trees that count for `share`."""
    from sklearn.ensemble import GradientBoostingClassifier

    straight = regression(table, truth)
    share_of_rows = min(float(_TREES["subsample"]), _TREE_ROWS / len(table))
    boosted = GradientBoostingClassifier(random_state=seed, **{**_TREES, "subsample": share_of_rows}).fit(table, truth)
    start = float(np.log(truth.mean() / (1 - truth.mean())))
    trees = tuple(_plain(tree[0].tree_, float(_TREES["learning_rate"])) for tree in boosted.estimators_)
    return SecondLook(straight.mean, straight.scale, straight.weights, straight.bias, trees, start, share)


def beside_others(table: Array, truth: Array, strength: float = _STRENGTH) -> OtherViews:
    """Logistic regression on what the case's other views say; a feature that nothing has counts for nothing."""
    truth, table = truth[has_partner(table)], table[has_partner(table)]
    if truth.all() or not truth.any():
        return OtherViews(np.zeros(len(OF_VIEWS)), np.ones(len(OF_VIEWS)), np.eye(len(OF_VIEWS))[0], 0.0)
    there = np.isfinite(table)
    count = np.maximum(there.sum(0), 1)
    mean = np.where(there, table, 0.0).sum(0) / count
    spread = np.sqrt(np.where(there, np.square(table - mean), 0.0).sum(0) / count)
    scale = np.maximum(spread, 1e-6)
    weights, bias = _logistic(np.nan_to_num((table - mean) / scale), truth, strength)
    return OtherViews(mean, scale, weights, bias)


def _plain(tree: Any, rate: float) -> dict[str, Array]:
    leaf = tree.children_left < 0
    return {
        "feature": np.where(leaf, -1, tree.feature).astype(int), "threshold": np.where(leaf, 0.0, tree.threshold),
        "left": np.where(leaf, 0, tree.children_left).astype(int),
        "right": np.where(leaf, 0, tree.children_right).astype(int),
        "value": np.where(leaf, tree.value[:, 0, 0] * rate, 0.0),
    }  # fmt: skip


def _logistic(table: Array, truth: Array, strength: float) -> tuple[Array, float]:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=strength, max_iter=2000).fit(table, truth)
    return np.asarray(fitted.coef_[0], float), float(fitted.intercept_[0])
