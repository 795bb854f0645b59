"""What lies where: brightness, contrast and direction of edges on a coarse raster."""

from __future__ import annotations

import numpy as np

from vesalius.classical.radiomics.region import shrunk
from vesalius.core.grid import Array, FloatArray

_CELLS = {2: 4, 3: 3}
_BINS = 8


def layout(grey: FloatArray) -> dict[str, float]:
    """Mean and deviation of each cell of a coarse raster over the image, in deviations of the whole image.

    Args:
        grey: (i, j) with 4 x 4 cells, or (i, j, k) with 3 x 3 x 3.
    """
    cells = _CELLS[grey.ndim]
    spread = float(grey.std())
    scaled = ((grey - grey.mean()) / spread if spread > 1e-9 else np.zeros_like(grey)).astype(np.float32)
    mean = _cell_means(scaled, cells)
    deviation = np.sqrt(np.maximum(_cell_means(scaled**2, cells) - mean**2, 0.0))
    features = {}
    for index in np.ndindex(mean.shape):
        name = "".join(str(number) for number in index)
        features[f"cell_{name}_mean"] = float(mean[index])
        features[f"cell_{name}_deviation"] = float(deviation[index])
    return features


def oriented_edges(grey: FloatArray) -> dict[str, float]:
    """Histogram of edge directions in each of 4 x 4 cells of a plane, by share of its edge strength.

    Dalal and Triggs, CVPR 2005, with cells that cover the whole image.

    Args:
        grey: (i, j).
    """
    down, right = np.gradient(grey) if min(grey.shape) > 1 else np.zeros((2, *grey.shape))
    strength = np.hypot(down, right)
    turn = np.mod(np.arctan2(down, right), np.pi) / np.pi * _BINS
    lower = np.floor(turn)
    share = turn - lower
    cells = _CELLS[2]
    parts = []
    for number in range(_BINS):
        weight = np.where(lower % _BINS == number, 1 - share, 0.0)
        weight += np.where((lower + 1) % _BINS == number, share, 0.0)
        parts.append(_cell_means((strength * weight).astype(np.float32), cells))
    bins = np.stack(parts, axis=-1)
    total = np.sqrt((bins**2).sum(axis=-1, keepdims=True) + 1e-6 * float(strength.mean()) ** 2)
    bins = np.divide(bins, total, out=np.zeros_like(bins), where=total > 0)
    return {f"cell_{i}{j}_bin_{b}": float(bins[i, j, b]) for i, j, b in np.ndindex(bins.shape)}


def _cell_means(values: Array, cells: int) -> FloatArray:
    """Means over a raster of cells; an axis shorter than the raster repeats its pixels."""
    repeats = [max(1, -(-cells // size)) for size in values.shape]
    for axis, repeat in enumerate(repeats):
        if repeat > 1:
            values = np.repeat(values, repeat, axis=axis)
    return np.asarray(shrunk(np.asarray(values, np.float32), (cells,) * values.ndim), np.float64)
