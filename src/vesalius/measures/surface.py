"""How far apart the surfaces of two masks lie.

A mask's surface is cut into elements, one per 2 x 2 x 2 neighbourhood of voxels that the surface passes. An
element sits in the middle of its neighbourhood and weighs its area in mm2, which follows from which of the
eight voxels are inside (marching cubes at the half level: Lorensen and Cline, SIGGRAPH 1987) and from the
spacing. Distances are weighted by these areas, as Nikolov et al. propose (J Med Internet Res 2021,
arXiv:1809.04430), so that neither thick slices nor stairs along oblique surfaces weigh too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from vesalius.measures.overlap import BoolArray

FloatArray = npt.NDArray[np.float64]

_MOST_LOOPS = 4  # a cube's surface falls into four pieces at most
_CORNERS = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])


@dataclass(frozen=True)
class Surface:
    """The elements of one mask's surface.

    Args:
        points: (n, 3) positions in mm along i, j, k.
        areas: (n,) mm2.
        counted: (n,) False where an element borders on a voxel that is left out: it is a place that the other
            surface may lie near to, but it is not scored itself.
    """

    points: FloatArray
    areas: FloatArray
    counted: BoolArray


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm of each surface's counted elements to the other surface, with the elements' areas.

    Both pairs are empty where both masks are; `one_empty` says that only one surface exists, so that there is
    no distance to speak of.
    """

    from_truth: FloatArray
    truth_areas: FloatArray
    from_predicted: FloatArray
    predicted_areas: FloatArray
    one_empty: bool

    def hausdorff(self, percentile: float, worst: float) -> float:
        """The larger of the two directed, area-weighted percentiles of distance (mm).

        Args:
            percentile: 95 for the HD95.
            worst: the value where one mask is empty and the other is not; the diagonal of the image is the
                largest distance that could have been found. Two empty masks agree: 0.
        """
        if self.one_empty:
            return worst
        return max(
            _weighted_percentile(self.from_truth, self.truth_areas, percentile),
            _weighted_percentile(self.from_predicted, self.predicted_areas, percentile),
        )

    def surface_dice(self, tolerance: float) -> float:
        """Normalised surface Dice: the share of both surfaces' area within `tolerance` mm of the other.

        0 to 1; 1 where both masks are empty, 0 where one is (Nikolov et al., arXiv:1809.04430).
        """
        if self.one_empty:
            return 0.0
        total = float(self.truth_areas.sum() + self.predicted_areas.sum())
        if total == 0.0:
            return 1.0
        near = self.truth_areas[self.from_truth <= tolerance].sum()
        near += self.predicted_areas[self.from_predicted <= tolerance].sum()
        return float(near) / total


def surface_distances(
    truth: BoolArray,
    predicted: BoolArray,
    spacing: tuple[float, float, float],
    *,
    left_out: BoolArray | None = None,
    plane: bool = False,
) -> SurfaceDistances:
    """Measure two masks (i, j, k) of one grid against each other. Memory grows with the masks' bounding box.

    Args:
        truth, predicted: the masks; voxels that are left out are False in both.
        spacing: mm along i, j, k.
        left_out: voxels that are not scored.
        plane: the image is a single slice; its outline is measured, not the two faces of the slice.
    """
    box = _common_box(truth, predicted)
    if box is None:
        none = np.zeros(0)
        return SurfaceDistances(none, none, none, none, one_empty=False)
    ignored = None if left_out is None else left_out[box]
    true_surface = surface_of(truth[box], spacing, left_out=ignored, plane=plane)
    predicted_surface = surface_of(predicted[box], spacing, left_out=ignored, plane=plane)
    if not len(true_surface.points) or not len(predicted_surface.points):
        none = np.zeros(0)
        return SurfaceDistances(none, none, none, none, one_empty=True)
    from_truth = _distances(true_surface, predicted_surface)
    from_predicted = _distances(predicted_surface, true_surface)
    kept_truth, kept_predicted = true_surface.counted, predicted_surface.counted
    return SurfaceDistances(
        from_truth[kept_truth],
        true_surface.areas[kept_truth],
        from_predicted[kept_predicted],
        predicted_surface.areas[kept_predicted],
        one_empty=False,
    )


def surface_of(
    mask: BoolArray,
    spacing: tuple[float, float, float],
    *,
    left_out: BoolArray | None = None,
    plane: bool = False,
) -> Surface:
    """The surface elements of a mask (i, j, k); what lies beyond the array is outside the mask."""
    codes = _neighbourhoods(mask, plane)
    passed = (codes != 0) & (codes != 255)
    index = np.argwhere(passed)
    areas = np.asarray(_areas(spacing)[codes[passed]], dtype=np.float64)
    counted = np.ones(len(index), dtype=bool)
    if left_out is not None and left_out.any():
        counted = _neighbourhoods(left_out, plane)[passed] == 0
    points = np.asarray(index * np.asarray(spacing), dtype=np.float64)
    return Surface(points, areas, counted)


def _common_box(truth: BoolArray, predicted: BoolArray) -> tuple[slice, ...] | None:
    """The bounding box of both masks with one voxel around it, or None where both are empty."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(truth.any(axis=others) | predicted.any(axis=others))
        if not len(occupied):
            return None
        box.append(slice(max(int(occupied[0]) - 1, 0), int(occupied[-1]) + 2))
    return tuple(box)


def _neighbourhoods(mask: BoolArray, plane: bool) -> npt.NDArray[np.uint8]:
    """For each 2 x 2 x 2 neighbourhood, one bit per voxel inside: (i + 1, j + 1, k + 1).

    A plane's slice is repeated along k instead, so that its surface is the wall that stands on its outline.
    """
    padded = np.pad(mask, ((1, 1), (1, 1), (0, 0) if plane else (1, 1)))
    if plane:
        padded = np.repeat(padded, 2, axis=2)
    sizes = tuple(size - 1 for size in padded.shape)
    codes = np.zeros(sizes, dtype=np.uint8)
    for bit, corner in enumerate(_CORNERS):
        part = tuple(slice(start, start + size) for start, size in zip(corner, sizes, strict=True))
        codes |= padded[part].astype(np.uint8) << np.uint8(bit)
    return codes


def _distances(start: Surface, goal: Surface) -> FloatArray:
    """Distance of each element of `start` to the nearest element of `goal` (mm)."""
    from scipy.spatial import cKDTree

    nearest, _ = cKDTree(goal.points).query(start.points)
    return np.asarray(nearest, dtype=np.float64)


def _weighted_percentile(values: FloatArray, weights: FloatArray, percentile: float) -> float:
    """The smallest value below or at which `percentile` per cent of the weight lies; 0 of no values."""
    if not len(values):
        return 0.0
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    place = int(np.searchsorted(share, share[-1] * percentile / 100.0 * (1.0 - 1e-12)))
    return float(values[order[min(place, len(values) - 1)]])


def _areas(spacing: tuple[float, float, float]) -> FloatArray:
    """Area (mm2) of the surface in each of the 256 neighbourhoods at this spacing."""
    i, j, k = spacing
    vectors = _area_vectors() * np.array([j * k, i * k, i * j])
    areas: FloatArray = np.linalg.norm(vectors, axis=-1).sum(axis=-1)
    return areas


@cache
def _area_vectors() -> FloatArray:
    """(256, 4, 3): the area vector of each closed loop in which the surface cuts a unit cube's faces.

    The area vector of a loop does not depend on how the loop is filled with triangles; its length is the
    area for flat loops, which nearly all are, and it turns with anisotropic spacing component by component.
    """
    vectors = np.zeros((256, _MOST_LOOPS, 3))
    for code in range(1, 255):
        for number, loop in enumerate(_loops(code)):
            following = np.roll(loop, -1, axis=0)
            vectors[code, number] = 0.5 * np.cross(loop, following).sum(axis=0)
    return vectors


def _loops(code: int) -> list[FloatArray]:
    """The closed polygons (points, 3), through the middles of cube edges, that part inside from outside."""
    neighbours: dict[tuple[float, ...], list[tuple[float, ...]]] = {}
    for axis in range(3):
        for level in (0, 1):
            for start, end in _face_segments(code, axis, level):
                neighbours.setdefault(start, []).append(end)
                neighbours.setdefault(end, []).append(start)
    loops = []
    while neighbours:
        loop = [next(iter(neighbours))]
        while loop:
            onward = neighbours.pop(loop[-1])
            step = next((point for point in onward if point in neighbours), None)
            if step is None:
                break
            loop.append(step)
        loops.append(np.array(loop))
    return loops


def _face_segments(code: int, axis: int, level: int) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Where the surface cuts one face of the cube: pairs of edge middles.

    Each run of inside corners around the face is cut off by one segment; two inside corners that meet only
    diagonally are kept apart.
    """
    around = ((0, 0), (0, 1), (1, 1), (1, 0))
    corners = [np.insert(np.array(place), axis, level) for place in around]
    inside = [bool(code >> int(corner @ (4, 2, 1)) & 1) for corner in corners]
    middles = [tuple((corners[n] + corners[(n + 1) % 4]) / 2.0) for n in range(4)]
    entries = [n for n in range(4) if not inside[n] and inside[(n + 1) % 4]]
    segments = []
    for entry in entries:
        leave = (entry + 1) % 4
        while inside[(leave + 1) % 4]:
            leave = (leave + 1) % 4
        segments.append((middles[entry], middles[leave]))
    return segments
