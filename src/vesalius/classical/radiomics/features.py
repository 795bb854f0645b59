"""All hand-designed features of an image by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vesalius.classical.radiomics.first_order import LEVELS, discretised, first_order, histogram
from vesalius.classical.radiomics.glcm import cooccurrence, glcm_features
from vesalius.classical.radiomics.glrlm import glrlm_features, run_lengths
from vesalius.classical.radiomics.layout import layout, oriented_edges
from vesalius.classical.radiomics.pattern import binary_patterns, edges, wavelet_energies
from vesalius.classical.radiomics.region import Region, region
from vesalius.classical.radiomics.shape import shape_features
from vesalius.core.grid import Array, FloatArray
from vesalius.core.image import Image

_DISTANCES = (1, 3)  # voxels, of co-occurrence


def image_features(image: Image, mask: Array | None = None) -> dict[str, float]:
    """Hand-designed features of an image, inside an outline where one is given.

    Some 0.1 s on one core, whatever the image's size beyond reading it. Every value is finite.

    Args:
        image: intensities, grey or colour, plane or volume.
        mask: (i, j, k) on the image's grid, non-zero inside.

    Returns:
        Values by name, such as "glcm_1_contrast"; always the same names in the same order for the same kind.

    Raises:
        UnusableInput: the mask does not fit or is empty.
    """
    return features_of(image.read(), image.grid.spacing, mask)


def features_of(array: Array, spacing: Sequence[float], mask: Array | None = None) -> dict[str, float]:
    """As `image_features`, of an array (channels, i, j, k) with its spacing along i, j, k."""
    found = region(array, spacing, mask)
    grey = found.grey
    values = grey[found.inside]
    levels = np.zeros(grey.shape, np.int64)
    levels[found.inside] = discretised(values)
    named = {"first_order": first_order(values), "histogram": histogram(levels[found.inside])}
    for distance in _DISTANCES:
        named[f"glcm_{distance}"] = glcm_features(cooccurrence(levels, LEVELS, distance))
    named["glrlm"] = glrlm_features(*run_lengths(levels, LEVELS))
    named["lbp"] = binary_patterns(grey, found.inside)
    named["wavelet"] = wavelet_energies(_filled(grey, found))
    named["edges"] = edges(grey, found.inside)
    named["layout"] = layout(grey)
    if found.dimension == 2:
        named["oriented"] = oriented_edges(grey)
    if len(found.channels) > 1:
        named["channels"] = _channels(found.channels[:, found.inside])
    if found.outlined:
        named["shape"] = shape_features(found)
    return _flat(named)


def _filled(grey: FloatArray, found: Region) -> FloatArray:
    """The image with everything outside the outline at the mean, which has no energy."""
    return np.where(found.inside, grey, grey[found.inside].mean())


def _channels(values: FloatArray) -> dict[str, float]:
    """Mean, deviation and skewness of every channel (c, n), its share in the whole, and how channels go together."""
    means, spreads = values.mean(axis=1), values.std(axis=1)
    total = float(np.abs(means).sum())
    features = {}
    for number, (mean, spread) in enumerate(zip(means, spreads, strict=True)):
        apart = values[number] - mean
        flat = spread <= 1e-9 * max(1.0, abs(mean))
        features[f"{number}_mean"] = float(mean)
        features[f"{number}_deviation"] = float(spread)
        features[f"{number}_skewness"] = 0.0 if flat else float((apart**3).mean() / spread**3)
        features[f"{number}_share"] = float(mean) / total if total else 0.0
        other = (number + 1) % len(means)
        together = float((apart * (values[other] - means[other])).mean())
        scale = float(spread * spreads[other])
        features[f"{number}_correlation"] = together / scale if scale > 1e-9 else 0.0
    return features


def _flat(named: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    flat = {f"{family}_{name}": float(value) for family, features in named.items() for name, value in features.items()}
    return {name: value if np.isfinite(value) else 0.0 for name, value in flat.items()}
