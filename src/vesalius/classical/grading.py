"""Which class a row of features belongs to: regularised logistic regression and boosted trees, calibrated.

Both are judged on training patients held out in turn (out of fold); the better one answers, or the mean of
both where that does better still. The same held-out answers calibrate the probabilities (Platt scaling, with
an offset per class; Guo et al., ICML 2017).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.classical.table import Scale
from vesalius.classical.trees import BoostSettings, Trees, boosted_classes
from vesalius.core.grid import Array, FloatArray

_STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0)  # inverse of the ridge, as in scikit-learn's C
_UNTRIED_STRENGTH = 0.01
_MIXES = (0.0, 0.5, 1.0)  # share of the trees in the answer
MIX_NAMES = {0.0: "logistic regression", 0.5: "logistic regression with boosted trees", 1.0: "boosted trees"}
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Grader:
    """A fitted answer to one question with one right class.

    Args:
        scale: brings features to a common scale.
        present: (known,) class numbers that training cases had; others get the doubt only.
        weights: (known, features + 1) of the logistic regression, the constant last.
        trees: boosted trees, or None where there were too few cases.
        mix: share of the trees in the answer.
        slope, offsets: calibration of the log odds.
        classes: number of classes.
        doubt: probability shared out evenly among all classes, so that few cases give no certainty.
    """

    scale: Scale
    present: Array
    weights: FloatArray
    trees: Trees | None
    mix: float
    slope: float
    offsets: FloatArray
    classes: int
    doubt: float

    def probabilities(self, values: FloatArray) -> FloatArray:
        """(n, classes) of (n, features) as they come from `table.rows`."""
        features = self.scale.apply(values)
        log_odds = (1 - self.mix) * _log_softmax(_linear(features, self.weights))
        if self.mix and self.trees is not None:
            log_odds = log_odds + self.mix * _log_softmax(self.trees.scores(features))
        shares = np.zeros((len(values), self.classes))
        shares[:, self.present] = np.exp(_log_softmax(self.slope * log_odds + self.offsets))
        return np.asarray((1 - self.doubt) * shares + self.doubt / self.classes)

    def importance(self) -> FloatArray:
        """(features,) how much each feature counts; sums to 1 (or 0 where nothing was learned)."""
        linear = np.abs(self.weights[:, :-1] - self.weights[:, :-1].mean(axis=0)).sum(axis=0)
        total = (1 - self.mix) * linear / (linear.sum() or 1.0)
        grown = 0.0 if self.trees is None else self.mix * self.trees.importance
        return np.asarray(total + grown)

    def arrays(self) -> dict[str, Array]:
        """What `from_arrays` makes the same grader of."""
        trees = {} if self.trees is None else {f"trees_{name}": a for name, a in self.trees.arrays().items()}
        return {
            "middle": self.scale.middle, "spread": self.scale.spread, "present": self.present,
            "weights": self.weights, "offsets": self.offsets,
            "settings": np.array([self.mix, self.slope, self.classes, self.doubt]), **trees,
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Grader:
        """The grader that `arrays` described."""
        mix, slope, classes, doubt = (float(value) for value in arrays["settings"])
        grown = {name.removeprefix("trees_"): a for name, a in arrays.items() if name.startswith("trees_")}
        return cls(
            Scale(arrays["middle"], arrays["spread"]), arrays["present"], arrays["weights"],
            Trees.from_arrays(grown) if grown else None, mix, slope, arrays["offsets"], int(classes), doubt,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Judged:
    """How the choice was made: out-of-fold log loss by candidate, and the answers themselves.

    Args:
        losses: mean negative log likelihood by name; empty where there were too few patients to hold any out.
        held_out: (n, classes) calibrated probabilities out of fold, or None.
    """

    losses: Mapping[str, float]
    held_out: FloatArray | None


def fit_grader(
    values: FloatArray,
    labels: Array,
    patients: Sequence[str],
    classes: int,
    seed: int,
    settings: BoostSettings | None = None,
) -> tuple[Grader, Judged]:
    """Learn which class each row belongs to.

    Args:
        values: (n, features), NaN where missing.
        labels: (n,) class numbers from 0.
        patients: whose each row is; a patient's rows are held out together.
        classes: how many classes there are, present or not.
        seed: of folds and trees.
        settings: of the trees.
    """  # fmt: skip
    settings = settings or BoostSettings()
    scale = Scale.of(values)
    features = scale.apply(values)
    present, own = np.unique(labels, return_inverse=True)
    doubt = 1 / (len(labels) + 2)
    if len(present) == 1:
        still = np.zeros((1, features.shape[1] + 1))
        return Grader(scale, present, still, None, 0.0, 1.0, np.zeros(1), classes, doubt), Judged({}, None)
    folds = _folds(own, patients, seed)
    if not folds:
        weights = _logistic(features, own, (_UNTRIED_STRENGTH,))[0]
        return Grader(scale, present, weights, None, 0.0, 1.0, np.zeros(len(present)), classes, doubt), Judged({}, None)
    linear, grown = _held_out(features, own, folds, settings, seed)
    best = min(range(len(_STRENGTHS)), key=lambda number: _loss(linear[number], own))
    mixed = {mix: (1 - mix) * linear[best] + mix * grown for mix in _MIXES}
    calibrated = {mix: _calibration(log_odds, own) for mix, log_odds in mixed.items()}
    answers = {mix: _log_softmax(s * mixed[mix] + o) for mix, (s, o) in calibrated.items()}
    losses = {mix: _loss(answer, own) for mix, answer in answers.items()}
    mix = min(_MIXES, key=lambda m: losses[m])
    weights = _logistic(features, own, (_STRENGTHS[best],))[0]
    trees = boosted_classes(features, own, settings, seed) if mix else None
    grader = Grader(scale, present, weights, trees, mix, *calibrated[mix], classes, doubt)
    held_out = np.zeros((len(own), classes))
    held_out[:, present] = np.exp(answers[mix])
    return grader, Judged({MIX_NAMES[m]: loss for m, loss in losses.items()}, held_out)


def _folds(labels: Array, patients: Sequence[str], seed: int) -> list[tuple[Array, Array]]:
    """Parts to learn on and to hold out, by patient; none where a class has fewer than two patients."""
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold

    whose = np.unique(np.asarray(patients), return_inverse=True)[1]
    count = min(_FOLDS, *(len(np.unique(whose[labels == label])) for label in np.unique(labels)))
    if count < 2:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = list(StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, whose))
    every = len(np.unique(labels))
    return parts if all(len(np.unique(labels[train])) == every for train, _ in parts) else []


def _held_out(
    features: FloatArray, labels: Array, folds: Sequence[tuple[Array, Array]], settings: BoostSettings, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Log probabilities out of fold: (strengths, n, classes) of the regressions, (n, classes) of the trees."""
    classes = int(labels.max()) + 1
    linear = np.zeros((len(_STRENGTHS), len(labels), classes))
    grown = np.zeros((len(labels), classes))
    for train, test in folds:
        for number, weights in enumerate(_logistic(features[train], labels[train], _STRENGTHS)):
            linear[number, test] = _log_softmax(_linear(features[test], weights))
        trees = boosted_classes(features[train], labels[train], settings, seed)
        grown[test] = _log_softmax(trees.scores(features[test]))
    return linear, grown


def _logistic(features: FloatArray, labels: Array, strengths: Sequence[float]) -> list[FloatArray]:
    """(classes, features + 1) weights for each strength, each started from the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=300, tol=1e-4, warm_start=True)
    found = []
    for strength in strengths:
        model.set_params(C=strength)
        with warnings.catch_warnings():
            # Each strength is judged by its loss out of fold: one that was not followed to the end is a candidate too.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features, labels)
        weights = np.concatenate([model.coef_, model.intercept_[:, None]], axis=1)
        found.append(np.concatenate([np.zeros_like(weights), weights]) if len(weights) == 1 else weights)
    return found


def _linear(features: FloatArray, weights: FloatArray) -> FloatArray:
    odds: FloatArray = features @ weights[:, :-1].T + weights[:, -1]
    return odds


def _calibration(log_odds: FloatArray, labels: Array) -> tuple[float, FloatArray]:
    """Slope and offsets that make held-out answers most likely, drawn weakly to 1 and 0."""
    from scipy import optimize

    def cost(free: FloatArray) -> float:
        loss = _loss(_log_softmax(np.exp(free[0]) * log_odds + free[1:]), labels) * len(labels)
        return float(loss + (free**2).sum())

    found = optimize.minimize(cost, np.zeros(1 + log_odds.shape[1]), method="L-BFGS-B")
    return float(np.exp(found.x[0])), np.asarray(found.x[1:])


def _loss(log_shares: FloatArray, labels: Array) -> float:
    return float(-log_shares[np.arange(len(labels)), labels].mean())


def _log_softmax(odds: FloatArray) -> FloatArray:
    shifted = odds - odds.max(axis=1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def as_json(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """The log losses of each question for a card."""
    return [{name: round(loss, 4) for name, loss in item.losses.items()} for item in judged]
