"""Grey level run lengths: how long a level goes on (Galloway 1975; IBSI section 3.7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.classical.radiomics.glcm import directions
from vesalius.core.grid import Array, FloatArray


def run_lengths(levels: Array, count: int) -> tuple[FloatArray, float]:
    """(count, longest) number of runs of each level and length, all directions merged.

    IBSI section 3.7, aggregation "3D: merged" (code IAZD); in a plane "2D: slice-merged" of its one slice.

    Args:
        levels: (i, j) or (i, j, k) grey levels from 1 to `count`; 0 outside the region.

    Returns:
        The matrix, and the number of voxels that the runs of one direction cover times the directions.
    """
    levels = np.asarray(levels, np.int64)
    longest = max(levels.shape)
    runs = np.zeros(count * longest, np.int64)
    steps = directions(levels.ndim)
    for step in steps:
        start, length = _runs(levels, step)
        runs += np.bincount((start - 1) * longest + length - 1, minlength=count * longest)
    return runs.reshape(count, longest).astype(np.float64), float((levels > 0).sum() * len(steps))


def _runs(levels: Array, step: Sequence[int]) -> tuple[Array, Array]:
    """Level and length of every run along a direction: lengths are counted back from the far end."""
    lead = next(axis for axis, s in enumerate(step) if s)
    turned = np.moveaxis(levels, lead, 0)
    rest = [s for axis, s in enumerate(step) if axis != lead]
    edge = [(1, 1)] * (turned.ndim - 1)
    middle = (slice(1, -1),) * (turned.ndim - 1)
    ahead = tuple(slice(1 + s, size + 1 + s) for s, size in zip(rest, turned.shape[1:], strict=True))
    length = np.pad(np.zeros(turned.shape[1:], np.int64), edge)
    before = np.pad(np.zeros(turned.shape[1:], np.int64), edge)
    found_levels, found_lengths = [], []
    for plane in turned[::-1]:
        same = (before[ahead] == plane) & (plane > 0)
        grown = np.where(same, length[ahead] + 1, (plane > 0).astype(np.int64))
        # What lies ahead and is not continued by this plane is the start of a run, read towards the far end.
        taken = np.zeros(before.shape, bool)
        taken[ahead] = same
        ends = (before > 0) & ~taken
        found_levels.append(before[ends])
        found_lengths.append(length[ends])
        length, before = np.zeros_like(length), np.zeros_like(before)
        length[middle], before[middle] = grown, plane
    last = before > 0
    return np.concatenate([*found_levels, before[last]]), np.concatenate([*found_lengths, length[last]])


def glrlm_features(matrix: FloatArray, voxels: float) -> dict[str, float]:
    """The features of IBSI section 3.7.

    Args:
        matrix, voxels: from `run_lengths`.
    """
    total = float(matrix.sum())
    level = np.arange(1, matrix.shape[0] + 1, dtype=np.float64)[:, None]
    length = np.arange(1, matrix.shape[1] + 1, dtype=np.float64)[None]
    share = matrix / total
    mean_level, mean_length = float((share * level).sum()), float((share * length).sum())
    present = share[share > 0]
    by_level, by_length = matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "short_runs_emphasis": float((share / length**2).sum()),
        "long_runs_emphasis": float((share * length**2).sum()),
        "low_grey_level_run_emphasis": float((share / level**2).sum()),
        "high_grey_level_run_emphasis": float((share * level**2).sum()),
        "short_run_low_grey_level_emphasis": float((share / (length * level) ** 2).sum()),
        "short_run_high_grey_level_emphasis": float((share * level**2 / length**2).sum()),
        "long_run_low_grey_level_emphasis": float((share * length**2 / level**2).sum()),
        "long_run_high_grey_level_emphasis": float((share * (length * level) ** 2).sum()),
        "grey_level_non_uniformity_normalised": float((by_level**2).sum()) / total**2,
        "run_length_non_uniformity_normalised": float((by_length**2).sum()) / total**2,
        "run_percentage": total / voxels,
        "grey_level_variance": float((share * (level - mean_level) ** 2).sum()),
        "run_length_variance": float((share * (length - mean_length) ** 2).sum()),
        "run_entropy": float(-(present * np.log2(present)).sum()),
    }
