"""Size, form and surroundings of an outline."""

from __future__ import annotations

from typing import Any

import numpy as np

from vesalius.classical.radiomics.region import Flags, Region
from vesalius.core.grid import FloatArray


def shape_features(found: Region) -> dict[str, float]:
    """Morphological features of the outline, IBSI section 3.1, and how it stands out from what is around it.

    Volumes have the features of a triangle mesh (marching cubes at one half, Lorensen and Cline 1987); planes
    have area and perimeter in their place. Lengths are in the grid's unit.

    Args:
        found: a region with an outline.
    """
    form = _plane(found) if found.dimension == 2 else _volume(found)
    return {**form, **_axes(found.inside, found.spacing), **_surroundings(found)}


def _plane(found: Region) -> dict[str, float]:
    """Area, Crofton perimeter, roundness (4 pi A / P^2), solidity and extent."""
    inside = np.pad(found.inside, 1)
    cell = float(found.spacing.prod())
    area = float(inside.sum()) * cell
    perimeter = float(_measure().perimeter_crofton(inside, directions=4)) * cell**0.5
    box = np.ptp(np.argwhere(inside), axis=0) + 1
    return {
        "area": area,
        "perimeter": perimeter,
        "roundness": 4 * np.pi * area / perimeter**2 if perimeter else 0.0,
        "solidity": _solidity(inside),
        "extent": float(inside.sum() / box.prod()),
        "aspect": float(box[0] * found.spacing[0] / (box[1] * found.spacing[1])),
        "parts": _parts(found.inside),
    }


def _volume(found: Region) -> dict[str, float]:
    """Mesh volume (RNU0), voxel volume (YEKZ), surface (C0JK), surface to volume (2PR5), sphericity (QCFX)."""
    inside = np.pad(found.inside, 1).astype(np.float32)
    points, triangles, _, _ = _measure().marching_cubes(inside, 0.5, spacing=tuple(found.spacing))
    a, b, c = (points[triangles[:, corner]].astype(np.float64) for corner in range(3))
    volume = abs(float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum())) / 6
    surface = float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2
    return {
        "volume": volume,
        "voxel_volume": float(found.inside.sum() * found.spacing.prod()),
        "surface": surface,
        "surface_to_volume": surface / volume,
        "sphericity": float((36 * np.pi * volume**2) ** (1 / 3) / surface),
        "solidity": _solidity(np.pad(found.inside, 1)),
        "parts": _parts(found.inside),
    }


def _measure() -> Any:
    from skimage import measure

    return measure


def _parts(inside: Flags) -> float:
    """Parts that hang together by faces."""
    from scipy import ndimage

    return float(ndimage.label(inside)[1])


def _solidity(inside: Flags) -> float:
    """Share of the convex hull that is inside; 1 where a hull cannot be drawn."""
    from scipy.spatial import ConvexHull, QhullError

    # The corners of the voxels of the rim, as a hull through their centres would lose half a voxel.
    rim = np.argwhere(inside)
    corners = np.indices((2,) * inside.ndim).reshape(inside.ndim, -1).T - 0.5
    try:
        hull = ConvexHull((rim[:, None] + corners[None]).reshape(-1, inside.ndim))
    except QhullError:
        return 1.0
    return float(inside.sum() / hull.volume)


def _axes(inside: Flags, spacing: FloatArray) -> dict[str, float]:
    """Axis lengths by principal components, IBSI sections 3.1.14 to 3.1.18: 4 times the root of each eigenvalue
    of the covariance of voxel centres.

    Elongation is minor over major, flatness least over major; 1 for a single voxel.
    """
    places = np.argwhere(inside) * spacing
    apart = places - places.mean(axis=0)
    values = np.sort(np.linalg.eigvalsh(apart.T @ apart / max(1, len(places) - 1)))[::-1]
    lengths = 4 * np.sqrt(np.maximum(values, 0.0))
    names = ("major_axis", "minor_axis", "least_axis")[: len(lengths)]
    features = dict(zip(names, (float(x) for x in lengths), strict=True))
    longest = float(lengths[0])
    features["elongation"] = float(lengths[1]) / longest if longest else 1.0
    if len(lengths) == 3:
        features["flatness"] = float(lengths[2]) / longest if longest else 1.0
    return features


def _surroundings(found: Region) -> dict[str, float]:
    """Mean and deviation inside less those of a ring around, and sharpness of the border, in deviations of both."""
    from scipy import ndimage

    grey = found.grey
    width = max(2, round(0.1 * max(found.inside.shape)))
    ring = ndimage.binary_dilation(found.inside, iterations=width) & ~found.inside
    core = ndimage.binary_erosion(found.inside, iterations=1, border_value=1)
    both = grey[ring | found.inside]
    spread = float(both.std())
    if not ring.any() or spread < 1e-9:
        return {"contrast": 0.0, "texture_contrast": 0.0, "sharpness": 0.0}
    border = found.inside & ~core
    slope = ndimage.gaussian_gradient_magnitude(grey, 1.0, mode="nearest")
    return {
        "contrast": float(grey[found.inside].mean() - grey[ring].mean()) / spread,
        "texture_contrast": float(grey[found.inside].std() - grey[ring].std()) / spread,
        "sharpness": float(slope[border].mean()) / spread if border.any() else 0.0,
    }
