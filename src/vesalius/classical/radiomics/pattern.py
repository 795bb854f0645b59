"""Local binary patterns, wavelet energies and edges: texture beyond what co-occurrence tells."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from vesalius.core.grid import Array, FloatArray

RADII = (1, 2, 4)
_NEIGHBOURS = 8
_PLANES = 12  # of a volume looked at across each axis
_SCALES = 4


def binary_patterns(grey: FloatArray, inside: Array) -> dict[str, float]:
    """Shares of the ten rotation-invariant uniform patterns of eight neighbours at each radius.

    Ojala et al., IEEE TPAMI 24:971, 2002; of a volume, on planes across its three axes pooled, after Zhao and
    Pietikaeinen, IEEE TPAMI 29:915, 2007.

    Args:
        grey: (i, j) or (i, j, k).
        inside: the pixels whose patterns count, of the same shape.
    """
    from skimage import feature

    tools: Any = feature

    planes = _planes(grey, inside)
    low, span = float(grey.min()), float(np.ptp(grey)) or 1.0
    features: dict[str, float] = {}
    for radius in RADII:
        counts = np.zeros(_NEIGHBOURS + 2)
        for plane, counted in planes:
            # 16-bit whole numbers: differences below rounding are no pattern.
            exact = np.rint((plane - low) / span * 65535).astype(np.uint16)
            pattern = tools.local_binary_pattern(exact, _NEIGHBOURS, radius, method="uniform").astype(np.int64)
            counts += np.bincount(pattern[counted], minlength=_NEIGHBOURS + 2)
        share = counts / max(1.0, counts.sum())
        features |= {f"radius_{radius}_pattern_{number}": float(s) for number, s in enumerate(share)}
    return features


def _planes(grey: FloatArray, inside: Array) -> list[tuple[FloatArray, Array]]:
    if grey.ndim == 2:
        return [(grey, inside)]
    found = []
    for axis in range(3):
        chosen = np.unique(np.linspace(0, grey.shape[axis] - 1, _PLANES).round().astype(int))
        found += [(grey.take(n, axis), inside.take(n, axis)) for n in chosen]
    return found


def wavelet_energies(grey: FloatArray) -> dict[str, float]:
    """Share of each subband of the Haar transform in the image's variance, by scale; 0 where it is constant.

    Mallat, IEEE TPAMI 11:674, 1989. A subband is named by one letter per axis: "h" where differences, "l"
    where means were taken; scale 1 is the finest. Scales that a small image does not have are 0.

    Args:
        grey: (i, j) or (i, j, k).
    """
    names = ["".join(letters) for letters in product("lh", repeat=grey.ndim)][1:]
    features = {f"scale_{scale}_{name}": 0.0 for scale in range(1, _SCALES + 1) for name in names}
    total = float(((grey - grey.mean()) ** 2).sum())
    low = grey
    for scale in range(1, _SCALES + 1):
        if total <= 1e-12 * max(1.0, float((grey**2).sum())) or min(low.shape) < 2:
            break
        bands = {"": low[tuple(slice(0, size // 2 * 2) for size in low.shape)]}
        for axis in range(grey.ndim):
            bands = {name + letter: band for name, old in bands.items() for letter, band in _halves(old, axis)}
        features |= {f"scale_{scale}_{name}": float((bands[name] ** 2).sum()) / total for name in names}
        low = bands["l" * grey.ndim]
    return features


def _halves(array: FloatArray, axis: int) -> list[tuple[str, FloatArray]]:
    """Sums and differences of neighbours along an axis, scaled so that energy is kept."""
    pairs = np.moveaxis(array, axis, 0)
    even, odd = pairs[0::2], pairs[1::2]
    half = np.sqrt(0.5)
    return [("l", np.moveaxis((even + odd) * half, 0, axis)), ("h", np.moveaxis((even - odd) * half, 0, axis))]


def edges(grey: FloatArray, inside: Array) -> dict[str, float]:
    """Strength of edges relative to the contrast inside, at three widths of smoothing (pixels)."""
    from scipy import ndimage

    spread = float(grey[inside].std())
    features = {}
    for width in (1.0, 2.0, 4.0):
        slope = ndimage.gaussian_gradient_magnitude(grey, width, mode="nearest", truncate=3.0)[inside]
        scaled = slope * width / spread if spread > 1e-9 else np.zeros_like(slope)
        features[f"width_{width:g}_mean"] = float(scaled.mean())
        features[f"width_{width:g}_deviation"] = float(scaled.std())
        features[f"width_{width:g}_percentile_90"] = float(np.percentile(scaled, 90))
    return features
