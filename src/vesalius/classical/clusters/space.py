"""Where a case lies among others: hand-designed features on a common scale, and their main directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.classical.table import Scale, rows
from vesalius.core.grid import Array, FloatArray

_KEPT_VARIANCE = 0.9
_MOST_DIRECTIONS = 20
_POINTS_A_DIRECTION = 5  # fewer would leave distances along it to chance


@dataclass(frozen=True, eq=False)
class Space:
    """The main directions of the training cases' features (principal components).

    Args:
        names: features, in order.
        scale: their middle and spread.
        mean: (features,) of the scaled training values.
        directions: (dimensions, features), orthonormal, the widest first.
        residual: mean squared length, in training, of what the directions leave out.
    """

    names: tuple[str, ...]
    scale: Scale
    mean: FloatArray
    directions: FloatArray
    residual: float

    @classmethod
    def of(cls, found: Sequence[Mapping[str, float]]) -> Space:
        """The space of training cases' features."""
        names = tuple(dict.fromkeys(name for each in found for name in each))
        values = rows(found, names)
        scale = Scale.of(values)
        scaled = scale.apply(values)
        mean = scaled.mean(axis=0)
        _, spread, axes = np.linalg.svd(scaled - mean, full_matrices=False)
        share = np.cumsum(spread**2) / max(float((spread**2).sum()), 1e-12)
        most = min(_MOST_DIRECTIONS, max(1, len(found) // _POINTS_A_DIRECTION))
        kept = min(int(np.searchsorted(share, _KEPT_VARIANCE)) + 1, most)
        rest = scaled - mean - (scaled - mean) @ axes[:kept].T @ axes[:kept]
        return cls(names, scale, mean, axes[:kept], max(float((rest**2).sum(axis=1).mean()), 1e-9))

    def place(self, found: Sequence[Mapping[str, float]]) -> tuple[FloatArray, FloatArray]:
        """(cases, dimensions) coordinates, and (cases,) squared residual over its mean in training."""
        centred = self.scale.apply(rows(found, self.names)) - self.mean
        points: FloatArray = centred @ self.directions.T
        rest = centred - points @ self.directions
        return points, (rest**2).sum(axis=1) / self.residual


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups as Gaussians along the main directions.

    Args:
        means, variances: (groups, dimensions).
        weights: (groups,) shares of the training cases.
    """

    means: FloatArray
    variances: FloatArray
    weights: FloatArray

    @classmethod
    def of(cls, points: FloatArray, labels: Array) -> Groups:
        """The groups of labelled points; -1 belongs to none. Variances are drawn towards their mean."""
        numbers = range(int(labels.max()) + 1)
        members = [points[labels == number] for number in numbers]
        common = np.mean([((each - each.mean(axis=0)) ** 2).mean(axis=0) for each in members], axis=0) + 1e-6
        means = np.array([each.mean(axis=0) for each in members])
        variances = np.array([_shrunk(each, common) for each in members])
        weights = np.array([len(each) for each in members], np.float64)
        return cls(means, variances, weights / weights.sum())

    def distances(self, points: FloatArray) -> FloatArray:
        """(cases, groups) squared distances in deviations, divided by the number of dimensions."""
        offset = points[:, np.newaxis] - self.means[np.newaxis]
        found: FloatArray = (offset**2 / self.variances[np.newaxis]).mean(axis=2)
        return found

    def membership(self, points: FloatArray) -> FloatArray:
        """(cases, groups) probabilities of each group."""
        size = points.shape[1]
        logs = -0.5 * (size * self.distances(points) + np.log(self.variances).sum(axis=1)) + np.log(self.weights)
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        found: FloatArray = shares / shares.sum(axis=1, keepdims=True)
        return found


def _shrunk(members: FloatArray, common: FloatArray) -> FloatArray:
    """Variance of a group, the nearer to the common one the fewer its members."""
    own = ((members - members.mean(axis=0)) ** 2).mean(axis=0)
    trust = len(members) / (len(members) + 10.0)
    variance: FloatArray = trust * own + (1.0 - trust) * common
    return variance
