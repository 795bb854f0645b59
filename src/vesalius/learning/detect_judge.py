"""Fit what scores candidates - the second look, the second opinion - out of fold, and keep only what helps there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vesalius.core.grid import Array
from vesalius.inference.candidates import Candidates
from vesalius.inference.second_look import FEATURES, SecondLook
from vesalius.inference.second_opinion import SecondOpinion, joined
from vesalius.learning.detect_data import LookedOver
from vesalius.learning.detect_lesson import hits

ALARMS_PER_IMAGE = (0.5, 1.0, 2.0, 4.0)  # false positives per image at which sensitivities are averaged
_FOLDS, _REPEATS = 5, 3
_LEAST_HITS = 12  # fewer hit lesions cannot carry more than the heat alone
_STRENGTH = 0.02  # C of the logistic regression: features are many, lesions few
_TREES = {"n_estimators": 80, "learning_rate": 0.05, "max_depth": 2, "subsample": 0.6, "min_samples_leaf": 20}

Fit = Callable[[Array, Array], SecondLook]


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

    @property
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
        said: what was measured, in words.
    """

    look: SecondLook | None
    opinion: SecondOpinion | None
    said: tuple[str, ...]


def fit_scoring(judged: Sequence[Judged], seed: int) -> Scoring:
    """What does best on patients that it was not fitted on."""
    truth = np.concatenate([item.hit.any(1) for item in judged])
    lesions = int(sum(item.hit.any(0).sum() for item in judged))
    if truth.all() or not truth.any():
        return Scoring(None, None, ("The candidates are scored by the heat alone: there was nothing to learn from.",))
    ways: dict[str, Fit] = {"the heat alone": heat_only}
    if lesions >= _LEAST_HITS:
        ways |= {
            "heat and features, regression": lambda table, hit: regression(table, hit),
            "heat and features, regression and trees": lambda table, hit: with_trees(table, hit, seed),
        }
    outside = {name: [_outside(judged, fit, seed + turn) for turn in range(_REPEATS)] for name, fit in ways.items()}
    measured = {
        name: np.mean([sensitivities(judged, scores) for scores in turns], axis=0) for name, turns in outside.items()
    }
    best = max(measured, key=lambda name: float(np.mean(measured[name])))
    table = np.concatenate([item.table for item in judged])
    said = [_sentence(name, found) for name, found in measured.items()]
    said.append(f"Candidates are scored by {best}.")
    opinion = None
    if lesions >= _LEAST_HITS and all(item.marks is not None for item in judged):
        opinion, more = _fit_opinion(judged, outside[best], measured[best])
        said += more
    return Scoring(ways[best](table, truth), opinion, tuple(said))


def _fit_opinion(
    judged: Sequence[Judged], turns: Sequence[Sequence[Array]], alone: Array
) -> tuple[SecondOpinion | None, list[str]]:
    """How the filters' marks count beside scores that were given out of fold, where they help."""
    marks = [item.marks for item in judged if item.marks is not None]
    filters = sensitivities(
        [replace(item, found=mark) for item, mark in zip(judged, marks, strict=True)], [mark.heat for mark in marks]
    )
    together, totals, hits = [], [], []
    for scores in turns:
        each = [joined(item.found, score, mark) for item, score, mark in zip(judged, scores, marks, strict=True)]
        items = [replace(item, found=every) for item, (every, _) in zip(judged, each, strict=True)]
        together.append(sensitivities(items, [total for _, total in each]))
        totals.append(np.concatenate([total for _, total in each]))
        hits.append(np.concatenate([item.hit.any(1) for item in items]))
    both = np.mean(together, axis=0)
    said = [_sentence("hand-designed filters alone", filters), _sentence("both together", both)]
    if float(both.mean()) <= float(alone.mean()):
        return None, [*said, "The filters' opinion does not count, as it did not help."]
    slope, bias = _logistic(np.concatenate(totals)[:, None], np.concatenate(hits), 1.0)
    return SecondOpinion(max(float(slope[0]), 1e-3), bias), [*said, "The filters' opinion counts as much as these."]


def _sentence(name: str, found: Array) -> str:
    each = ", ".join(f"{value:.2f} at {rate:g}" for value, rate in zip(found, ALARMS_PER_IMAGE, strict=True))
    return f"Out of fold, {name}: sensitivity {each} false positives per image."


def _outside(judged: Sequence[Judged], fit: Fit, seed: int) -> list[Array]:
    """Scores of every item by classifiers that never saw its patient."""
    patients = sorted({item.image.patient for item in judged})
    order = np.random.default_rng(seed).permutation(len(patients))
    fold = {patients[n]: place % _FOLDS for place, n in enumerate(order)}
    scores: list[Array] = [np.zeros(0)] * len(judged)
    for number in range(_FOLDS):
        inner = [item for item in judged if fold[item.image.patient] != number]
        truth = np.concatenate([item.hit.any(1) for item in inner]) if inner else np.zeros(0, bool)
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
    boosted = GradientBoostingClassifier(random_state=seed, **_TREES).fit(table, truth)
    start = float(np.log(truth.mean() / (1 - truth.mean())))
    trees = tuple(_plain(tree[0].tree_, float(_TREES["learning_rate"])) for tree in boosted.estimators_)
    return SecondLook(straight.mean, straight.scale, straight.weights, straight.bias, trees, start, share)


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
