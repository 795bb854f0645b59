"""How many groups there are, if any: stability under resampling against a null of no structure.

A grouping is real as far as it comes back when patients are drawn anew (Ben-Hur et al., Pac Symp Biocomput
2002; Lange et al., Neural Comput 2004) and its groups lie apart (silhouette; Rousseeuw, J Comput Appl Math
1987). Any method cuts a long cloud into stable halves, so the product of the two is held against what the same
method reaches on single Gaussian clouds of the same mean and covariance (as in SigClust; Liu et al., JASA 2008),
drawn as often as the budget allows. The best of all candidates is compared with the best of all on each cloud,
so that trying many is not rewarded. "No groups" is an answer.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.core.grid import Array, FloatArray

_MOST_GROUPS = 8
_LEAST_MEMBERS = 5  # patients that a group needs to be one
_MOST_JUDGED = 1000  # points that a silhouette is the mean of
_RESAMPLES = 8  # pairs of draws that a stability is the mean of
_SHARE = 0.8  # of the patients in each draw
_LEAST_CLOUDS, _MOST_CLOUDS = 19, 199  # 19 are the fewest that a probability of 0.05 can come from
SIGNIFICANT = 0.05

Rng = np.random.Generator


@dataclass(frozen=True)
class Candidate:
    """A way of grouping: a method and how many groups, or for HDBSCAN how small one may be."""

    method: str
    size: int

    @property
    def name(self) -> str:
        """What reports call it."""
        words = {"kmeans": "k-means", "mixture": "Gaussian mixture", "hdbscan": "HDBSCAN"}[self.method]
        return f"{words}, groups of {self.size} or more" if self.method == "hdbscan" else f"{words}, {self.size} groups"

    def labels(self, points: FloatArray, seed: int) -> Array:
        """(n,) group of each point from 0; -1 for what belongs to none (HDBSCAN)."""
        from sklearn.cluster import HDBSCAN, KMeans
        from sklearn.mixture import GaussianMixture

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that does not converge is unstable, which is measured
            if self.method == "kmeans":
                return np.asarray(KMeans(self.size, n_init=3, random_state=seed).fit_predict(points))
            if self.method == "mixture":
                mixture = GaussianMixture(self.size, covariance_type="diag", reg_covar=1e-3, random_state=seed)
                return np.asarray(mixture.fit_predict(points))
            return np.asarray(HDBSCAN(min_cluster_size=self.size, copy=True).fit_predict(points))


@dataclass(frozen=True)
class Tried:
    """What became of a candidate.

    Args:
        candidate: the way of grouping.
        groups: how many it found among all points.
        stability: mean adjusted Rand index of pairs of draws (1: the same groups every time).
        separation: mean silhouette of the points that belong to a group, times their share (1: far apart).
        chance: mean of stability times separation on clouds without groups.
        excess: how far stability times separation lies above that.
    """

    candidate: Candidate
    groups: int
    stability: float
    separation: float
    chance: float
    excess: float


@dataclass(frozen=True)
class Structure:
    """The answer.

    Args:
        labels: (n,) group of each point from 0, -1 for none; all 0 where there are no groups.
        groups: their number, 1 where there are none.
        chosen: the way of grouping, None where there are no groups.
        probability: that clouds without groups look as stable as the best candidate.
        clouds: how many were drawn.
        tried: every candidate.
    """

    labels: Array
    groups: int
    chosen: Candidate | None
    probability: float
    clouds: int
    tried: tuple[Tried, ...]


def find_structure(points: FloatArray, patients: Sequence[str], *, seconds: float, seed: int) -> Structure:
    """Look for groups among points.

    Args:
        points: (n, dimensions).
        patients: of each point; draws take or leave a patient whole.
        seconds: budget; more clouds are drawn where it allows, never fewer than 19.
        seed: every draw follows from it.
    """
    rng = np.random.default_rng(seed)
    known, owner = np.unique(np.asarray(patients), return_inverse=True)
    tried = candidates(len(known))
    nothing = Structure(np.zeros(len(points), np.int64), 1, None, 1.0, 0, ())
    if not tried or float(np.ptp(points, axis=0).max(initial=0.0)) == 0.0:
        return nothing
    started = time.perf_counter()
    found = [_judged(candidate, points, owner, rng) for candidate in tried]
    once = time.perf_counter() - started
    clouds = int(np.clip(seconds / max(once, 1e-3), _LEAST_CLOUDS, _MOST_CLOUDS))
    draw = _cloud(points, rng)
    chance = np.array([[np.prod(_judged(candidate, draw(), owner, rng)) for candidate in tried] for _ in range(clouds)])
    middle = chance.mean(axis=0)
    excess = np.prod(found, axis=1) - middle
    labels = [candidate.labels(points, seed) for candidate in tried]
    groups = [_groups(each, owner) for each in labels]
    rows = tuple(
        Tried(candidate, count, stability, separation, by_chance, above)
        for candidate, count, (stability, separation), by_chance, above in zip(
            tried, groups, found, middle.tolist(), excess.tolist(), strict=True
        )
    )
    allowed = [n for n, count in enumerate(groups) if count > 1]
    if not allowed:
        return Structure(nothing.labels, 1, None, 1.0, clouds, rows)
    quality = np.prod(found, axis=1)
    best = max(allowed, key=lambda n: quality[n])
    highest = (chance - middle).max(axis=1)
    probability = (1 + int((highest >= excess[best]).sum())) / (clouds + 1)
    if probability > SIGNIFICANT:
        return Structure(nothing.labels, 1, None, probability, clouds, rows)
    return Structure(_by_size(labels[best]), groups[best], tried[best], probability, clouds, rows)


def candidates(patients: int) -> tuple[Candidate, ...]:
    """What is tried on so many patients; nothing where groups could not be told from chance."""
    most = min(_MOST_GROUPS, patients // (2 * _LEAST_MEMBERS))
    numbers = range(2, most + 1)
    sizes = sorted({max(_LEAST_MEMBERS, patients // 20), max(_LEAST_MEMBERS, patients // 8)}) if most > 1 else []
    return (
        *(Candidate("kmeans", number) for number in numbers),
        *(Candidate("mixture", number) for number in numbers),
        *(Candidate("hdbscan", size) for size in sizes),
    )


def _judged(candidate: Candidate, points: FloatArray, owner: Array, rng: Rng) -> tuple[float, float]:
    """(stability, separation)."""
    from sklearn.metrics import silhouette_score

    labels = candidate.labels(points, int(rng.integers(2**31)))
    inside = labels >= 0
    if len(set(labels[inside].tolist())) < 2:
        return 0.0, 0.0
    most = min(_MOST_JUDGED, int(inside.sum()))
    apart = silhouette_score(points[inside], labels[inside], sample_size=most, random_state=0)
    return _stability(candidate, points, owner, rng), max(float(apart), 0.0) * float(inside.mean())


def _stability(candidate: Candidate, points: FloatArray, owner: Array, rng: Rng) -> float:
    """Mean adjusted Rand index of pairs of draws, on the points that both hold."""
    from sklearn.metrics import adjusted_rand_score

    count = int(owner.max()) + 1
    values = []
    for _ in range(_RESAMPLES):
        draws = [rng.permutation(count)[: max(2, round(_SHARE * count))] for _ in range(2)]
        members = [np.flatnonzero(np.isin(owner, draw)) for draw in draws]
        groups = [candidate.labels(points[inside], int(rng.integers(2**31))) for inside in members]
        both, first, second = np.intersect1d(members[0], members[1], return_indices=True)
        ours, theirs = groups[0][first], groups[1][second]
        single = len(both) == 0 or len(set(ours.tolist())) < 2 or len(set(theirs.tolist())) < 2
        values.append(0.0 if single else float(adjusted_rand_score(ours, theirs)))
    return float(np.mean(values))


def _cloud(points: FloatArray, rng: Rng) -> Callable[[], FloatArray]:
    """Draws a Gaussian cloud of as many points, with the same mean and covariance."""
    middle = points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points - middle, full_matrices=False)
    scale = spread / np.sqrt(max(len(points) - 1, 1))

    def draw() -> FloatArray:
        drawn: FloatArray = middle + (rng.normal(size=(len(points), len(scale))) * scale) @ axes
        return drawn

    return draw


def _groups(labels: Array, owner: Array) -> int:
    """How many groups have enough patients; 0 where one has too few, which is then no group of patients."""
    members = [len(set(owner[labels == label].tolist())) for label in np.unique(labels[labels >= 0])]
    return len(members) if members and min(members) >= _LEAST_MEMBERS else 0


def _by_size(labels: Array) -> Array:
    """The same groups, the largest called 0."""
    found, counts = np.unique(labels[labels >= 0], return_counts=True)
    rank = {int(label): place for place, label in enumerate(found[np.argsort(-counts, kind="stable")])}
    return np.array([rank.get(int(label), -1) for label in labels])
