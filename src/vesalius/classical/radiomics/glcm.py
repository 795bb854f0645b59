"""Grey level co-occurrence: which levels stand beside which (Haralick 1973; IBSI section 3.6)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from vesalius.core.grid import Array, FloatArray


def directions(dimension: int) -> list[tuple[int, ...]]:
    """One of each two opposite neighbours: 4 directions in a plane, 13 in a volume."""
    every = product((-1, 0, 1), repeat=dimension)
    return [step for step in every if step > (0,) * dimension]


def shifted(shape: Sequence[int], step: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of an array and of its neighbours one step away, of equal shape (empty if the step is too long)."""
    here, there = [], []
    for size, s in zip(shape, step, strict=True):
        length = max(0, size - abs(s))
        start = max(0, -s)
        here.append(slice(start, start + length))
        there.append(slice(start + s, start + s + length) if length else slice(0, 0))
    return tuple(here), tuple(there)


def cooccurrence(levels: Array, count: int, distance: int = 1) -> FloatArray:
    """(count, count) symmetric joint probabilities of neighbouring levels, all directions merged.

    IBSI section 3.6, aggregation "3D: merged" (code IAZD); in a plane "2D: slice-merged" of its one slice.

    Args:
        levels: (i, j) or (i, j, k) grey levels from 1 to `count`; 0 outside the region.
        distance: Chebyshev distance of the neighbours in voxels.

    Returns:
        Probabilities that sum to 1, or zeros where there are no neighbours.
    """
    pairs = np.zeros(count * count, np.int64)
    levels = np.asarray(levels, np.int64)
    for step in directions(levels.ndim):
        here, there = shifted(levels.shape, [distance * s for s in step])
        one, other = levels[here].ravel(), levels[there].ravel()
        known = (one > 0) & (other > 0)
        pairs += np.bincount((one[known] - 1) * count + other[known] - 1, minlength=count * count)
    matrix = pairs.reshape(count, count).astype(np.float64)
    matrix = matrix + matrix.T
    total = matrix.sum()
    return matrix / total if total else matrix


def glcm_features(matrix: FloatArray) -> dict[str, float]:
    """The features of IBSI section 3.6 of a joint probability matrix; all 0 of an empty one.

    Args:
        matrix: from `cooccurrence`.
    """
    count = len(matrix)
    level = np.arange(1, count + 1, dtype=np.float64)
    rows, columns = np.meshgrid(level, level, indexing="ij")
    away = np.abs(rows - columns)
    side = matrix.sum(axis=1)
    average = float((side * level).sum())
    variance = float((side * (level - average) ** 2).sum())
    difference: Array = np.bincount(away.astype(np.int64).ravel(), matrix.ravel(), count)
    total: Array = np.bincount((rows + columns).astype(np.int64).ravel(), matrix.ravel(), 2 * count + 1)
    gap, both = np.arange(count), np.arange(2 * count + 1)
    mean_gap = float((difference * gap).sum())
    mean_sum = float((total * both).sum())
    sums = rows + columns - 2 * average
    joint = _entropy(matrix)
    return {
        "joint_maximum": float(matrix.max(initial=0.0)),
        "joint_average": average,
        "joint_variance": variance,
        "joint_entropy": joint,
        "difference_average": mean_gap,
        "difference_variance": float((difference * (gap - mean_gap) ** 2).sum()),
        "difference_entropy": _entropy(difference),
        "sum_average": mean_sum,
        "sum_variance": float((total * (both - mean_sum) ** 2).sum()),
        "sum_entropy": _entropy(total),
        "angular_second_moment": float((matrix**2).sum()),
        "contrast": float((matrix * away**2).sum()),
        "inverse_difference": float((matrix / (1 + away)).sum()),
        "inverse_difference_moment": float((matrix / (1 + away**2)).sum()),
        "inverse_variance": float((matrix[away > 0] / away[away > 0] ** 2).sum()),
        "correlation": _correlation(matrix, rows, columns, average, variance),
        "autocorrelation": float((matrix * rows * columns).sum()),
        "cluster_shade": float((matrix * sums**3).sum()),
        "cluster_prominence": float((matrix * sums**4).sum()),
        **_information(side, joint),
    }


def _entropy(share: Array) -> float:
    present = share[share > 0]
    return float(-(present * np.log2(present)).sum())


def _correlation(matrix: FloatArray, rows: FloatArray, columns: FloatArray, average: float, variance: float) -> float:
    """1 where there is a single level, as the matrix tells each level from its neighbour then."""
    if variance < 1e-12:
        return 1.0
    return float((matrix * rows * columns).sum() - average**2) / variance


def _information(side: FloatArray, joint: float) -> dict[str, float]:
    """First and second measure of information correlation; 0 where there is a single level."""
    alone = _entropy(side)
    independent = 2 * alone  # entropy of the product of both marginals, and the cross entropy with it
    first = (joint - independent) / alone if alone > 0 else 0.0
    second = float(np.sqrt(max(0.0, 1 - np.exp(-2 * (independent - joint)))))
    return {"information_correlation_1": first, "information_correlation_2": second}
