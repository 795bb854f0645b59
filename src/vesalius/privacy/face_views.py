"""A head as it is seen from the front: a map of depths before and after its face was removed.

Anybody can draw the face of a head from MR or CT: the first tissue on the way from the front is the skin. The same
map of depths says how much of the facial surface is gone and whether its relief can still be told, and it is what
the pictures show. A picture of the surface *before* shows a face: it belongs onto the owner's own disk
(`reporting.face_page`) and nowhere else, never into a cohort, another report or a shared file.
"""

from __future__ import annotations

import numpy as np

from vesalius.core.grid import Array, FloatArray, Grid
from vesalius.imaging.registration import Volume

_STEP_MM = 2.0
_WHOLE = ((-95.0, 95.0), (-145.0, 60.0), (-140.0, 105.0))  # x, y, z of the average head: what pictures show
_FACE = ((-55.0, 55.0), (-145.0, 0.0), (-115.0, -26.0))  # eyes to chin: what the figures are about
_DEEPER_MM = 3.0
_FEWEST = 30  # places that must be left for a relief to be compared
Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


def surface_figures(outline: Volume, removed: Array, grid: Grid, pose: FloatArray) -> tuple[float, float]:
    """How much of the facial surface is gone, and how alike the relief is that remains.

    Args:
        outline: 1 in tissue, 0 in air, before.
        removed: (i, j, k) bool on `grid`.
        grid: of the scan.
        pose: average head to patient mm.

    Returns:
        Share of the places between eyes and chin where the surface was and now lies at least 3 mm deeper (0 to 1),
        and the correlation of the depths before and after, each less its best surface of second order (-1 to 1;
        0 where too little is left to compare).
    """
    before = depths(outline, None, grid, pose, _FACE)
    after = depths(outline, removed, grid, pose, _FACE)
    there = np.isfinite(before)
    if not there.any():
        return 1.0, 0.0
    gone = ~(np.abs(after - before) < _DEEPER_MM)
    both = there & np.isfinite(after)
    if both.sum() < _FEWEST:
        return float(gone[there].mean()), 0.0
    first, second = _relief(before, both), _relief(after, both)
    spread = float(first.std() * second.std())
    relief = float((first * second).mean()) / spread if spread > 1e-6 else 0.0
    return float(gone[there].mean()), relief


def depths(outline: Volume, removed: Array | None, grid: Grid, pose: FloatArray, box: Box = _WHOLE) -> Array:
    """(x, z) float32: where the first tissue lies on the way from the front, y in mm of the average head; nan: none.

    Args:
        outline: 1 in tissue.
        removed: (i, j, k) bool on `grid`, taken for air; None for nothing.
        grid: of the scan.
        pose: average head to patient mm.
        box: limits of x, y and z in mm of the average head; 2 mm apart.
    """
    import scipy.ndimage

    sides = [np.arange(low, high, _STEP_MM) for low, high in box]
    places = np.eye(4)
    places[:3, :3] *= _STEP_MM
    places[:3, 3] = [side[0] for side in sides]
    shape = tuple(side.size for side in sides)

    def sampled(values: Array, affine: FloatArray, order: int) -> Array:
        change = np.linalg.inv(affine) @ pose @ places
        return np.asarray(
            scipy.ndimage.affine_transform(values, change[:3, :3], change[:3, 3], output_shape=shape, order=order)
        )

    tissue = sampled(outline.values, outline.grid.affine, 1) > 0.5
    if removed is not None:
        tissue &= sampled(removed.view(np.uint8), grid.affine, 0) == 0
    found = sides[1][tissue.argmax(axis=1)].astype(np.float32)
    found[~tissue.any(axis=1)] = np.nan
    return np.asarray(found)


def _relief(depth: Array, where: Array) -> FloatArray:
    """Depths at these places less their best surface of second order."""
    x, z = (axis[where] / axis.max() for axis in np.meshgrid(*map(np.arange, depth.shape), indexing="ij"))
    basis = np.stack([np.ones_like(x), x, z, x * x, x * z, z * z], axis=1)
    values = depth[where].astype(np.float64)
    return np.asarray(values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0])


def sagittal(array: Array, grid: Grid, pose: FloatArray) -> Array:
    """(y, z) float32 every mm: the slice through the middle of the head; the least value outside the scan.

    Args:
        array: (i, j, k) on `grid`.
        grid: of the scan.
        pose: average head to patient mm.
    """
    import scipy.ndimage

    _, (front, _), (low, high) = _WHOLE
    y, z = np.meshgrid(np.arange(front, -front), np.arange(low, high), indexing="ij")
    index = grid.to_index(np.stack([np.zeros_like(y), y, z], axis=-1) @ pose[:3, :3].T + pose[:3, 3])
    values = scipy.ndimage.map_coordinates(
        array, np.moveaxis(index, -1, 0), order=1, mode="constant", cval=float(array.min()), output=np.float32
    )
    return np.asarray(values)


def shaded(depth: Array) -> Array:
    """(1, x, z downwards) uint8: the surface of these depths, lit from the front, as `formats.raster` writes it."""
    filled = np.where(np.isfinite(depth), depth, np.nanmax(depth) if np.isfinite(depth).any() else 0.0)
    across, up = np.gradient(filled, _STEP_MM)
    light = 1.0 / np.sqrt(1.0 + across**2 + up**2)
    grey = np.where(np.isfinite(depth), 40 + 215 * light, 0)
    return np.ascontiguousarray(grey[None, :, ::-1].astype(np.uint8))
