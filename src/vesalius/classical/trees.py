"""Gradient boosted decision trees as plain arrays: learned with scikit-learn, applied with numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vesalius.core.grid import Array, FloatArray

_PARTS = ("root", "column", "feature", "threshold", "left", "right", "value", "importance", "outputs")
_DEEPEST = 64


@dataclass(frozen=True, eq=False)
class Trees:
    """A forest whose answers add up.

    Args:
        root: (trees,) node that each tree starts at.
        column: (trees,) output that each tree adds to.
        feature, threshold, left, right: (nodes,) go left where the feature (32-bit) is at most the threshold;
            a leaf leads to itself.
        value: (nodes,) what a leaf adds.
        importance: (features,) share of the loss that each feature took away; sums to 1.
        outputs: number of outputs.
        depth: of the deepest tree.
    """

    root: Array
    column: Array
    feature: Array
    threshold: FloatArray
    left: Array
    right: Array
    value: FloatArray
    importance: FloatArray
    outputs: int
    depth: int

    def scores(self, features: FloatArray) -> FloatArray:
        """(n, outputs) sums over all trees of (n, features)."""
        values = np.asarray(features, np.float32)
        result = np.zeros((len(values), self.outputs))
        for first in range(0, len(values), 1024):
            part = values[first : first + 1024]
            rows = np.arange(len(part))[:, None]
            node = np.repeat(self.root[None], len(part), axis=0)
            for _ in range(self.depth):
                below = part[rows, self.feature[node]] <= self.threshold[node]
                node = np.where(below, self.left[node], self.right[node])
            for output in range(self.outputs):
                result[first : first + 1024, output] = self.value[node[:, self.column == output]].sum(axis=1)
        return result

    def arrays(self) -> dict[str, Array]:
        """What `from_arrays` makes the same trees of."""
        found = {name: np.asarray(getattr(self, name)) for name in (*_PARTS, "depth")}
        return {name: np.asarray(array) for name, array in found.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Trees:
        """The trees that `arrays` described.

        Raises:
            ValueError: they lead nowhere.
        """
        parts = {name: arrays[name] for name in _PARTS if name != "outputs"}
        trees = cls(**parts, outputs=int(arrays["outputs"]), depth=int(arrays["depth"]))
        nodes = len(trees.value)
        bounds = {
            "root": nodes, "left": nodes, "right": nodes, "feature": len(trees.importance), "column": trees.outputs
        }  # fmt: skip
        inside = all(((parts[name] >= 0) & (parts[name] < bound)).all() for name, bound in bounds.items())
        alike = all(parts[name].shape == (nodes,) for name in ("feature", "threshold", "left", "right", "value"))
        if not (inside and alike and parts["root"].shape == parts["column"].shape and 0 <= trees.depth <= _DEEPEST):
            raise ValueError("trees that lead nowhere")
        return trees


@dataclass(frozen=True)
class BoostSettings:
    """How trees are grown: Friedman, "Stochastic gradient boosting", 2002.

    Args:
        trees: rounds of boosting.
        rate: share of each tree's answer that is added.
        depth: questions from a root to a leaf.
        leaf: least cases in a leaf.
        share: of the cases that each tree sees.
    """

    trees: int = 250
    rate: float = 0.05
    depth: int = 3
    leaf: int = 5
    share: float = 0.7


def boosted_classes(
    features: FloatArray, labels: Array, settings: BoostSettings, seed: int, weights: FloatArray | None = None
) -> Trees:
    """Trees whose (n, classes) scores are log odds up to a constant per row; of two classes the first scores 0.

    Args:
        features: (n, features), finite.
        labels: (n,) class numbers, each of 0..classes-1 present.
        weights: (n,) of the cases.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(**_options(settings, seed), init="zero")
    model.fit(features, labels, weights)
    columns = [1] if model.estimators_.shape[1] == 1 else list(range(model.estimators_.shape[1]))
    return _as_arrays(model.estimators_, columns, settings, model.feature_importances_, len(model.classes_))


def boosted_number(
    features: FloatArray, numbers: FloatArray, settings: BoostSettings, seed: int
) -> tuple[Trees, float]:
    """Trees whose single score, added to the returned constant, estimates a number (least absolute deviation)."""
    from sklearn.ensemble import GradientBoostingRegressor

    middle = float(np.median(numbers))
    model = GradientBoostingRegressor(**_options(settings, seed), init="zero", loss="huber")
    model.fit(features, numbers - middle)
    return _as_arrays(model.estimators_, [0], settings, model.feature_importances_, 1), middle


def _options(settings: BoostSettings, seed: int) -> dict[str, object]:
    return {
        "n_estimators": settings.trees, "learning_rate": settings.rate, "max_depth": settings.depth,
        "min_samples_leaf": settings.leaf, "subsample": settings.share, "max_features": "sqrt", "random_state": seed,
    }  # fmt: skip


def _as_arrays(
    estimators: Array, columns: list[int], settings: BoostSettings, importance: FloatArray, outputs: int
) -> Trees:
    roots, column, parts, start = [], [], [], 0
    for row in estimators:
        for number, estimator in zip(columns, row, strict=True):
            tree = estimator.tree_
            itself = np.arange(start, start + tree.node_count)
            leaf = tree.children_left < 0
            parts.append((
                np.where(leaf, 0, tree.feature), np.where(leaf, np.inf, tree.threshold),
                np.where(leaf, itself, tree.children_left + start), np.where(leaf, itself, tree.children_right + start),
                tree.value[:, 0, 0] * settings.rate,
            ))  # fmt: skip
            roots.append(start)
            column.append(number)
            start += tree.node_count
    feature, threshold, left, right, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Trees(
        np.array(roots, np.int32), np.array(column, np.int32), feature.astype(np.int32), threshold,
        left.astype(np.int32), right.astype(np.int32), value, np.asarray(importance), outputs, settings.depth,
    )  # fmt: skip
