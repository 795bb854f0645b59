"""Where voxels stand in the patient: the only owner of the spatial convention.

Arrays are indexed `[i, j, k]`; the affine takes the index of a voxel's *centre* to patient millimetres in
LPS (x to the patient's left, y to the back, z to the head: DICOM PS3.3 C.7.6.2.1.1). NIfTI's RAS is turned
into LPS on reading (`formats/nifti.py`) and back on writing, and nowhere else. A plane image has one slice:
i to the right along a row, j down a column, k = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))  # (towards minus, towards plus) of each LPS axis


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular lattice of voxel centres in patient space (mm, LPS).

    Args:
        shape: voxels along i, j, k.
        affine: (4, 4), index to patient millimetres, LPS.
        frame_of_reference: pseudonymous Frame of Reference UID; None where the source has none.
        placed: False for plane images whose place in the patient is unknown (photographs, most projection
            images): spacing may hold, origin and directions mean nothing.
        unit: "mm", or "pixel" where the source states no physical spacing.

    Raises:
        ValueError: the affine is not a finite, invertible (4, 4) matrix, or a size is below 1.
    """

    shape: tuple[int, int, int]
    affine: FloatArray
    frame_of_reference: str | None = None
    placed: bool = True
    unit: str = "mm"

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError("a grid's affine is a finite 4 x 4 matrix")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"a grid's shape has three sizes of at least 1, not {self.shape}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise ValueError("a grid's affine must be invertible")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))

    @classmethod
    def from_parts(
        cls,
        shape: Sequence[int],
        *,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        origin: Sequence[float] = (0.0, 0.0, 0.0),
        directions: npt.ArrayLike | None = None,
        frame_of_reference: str | None = None,
        placed: bool = True,
        unit: str = "mm",
    ) -> Grid:
        """A grid from spacing (mm), origin (mm, LPS) and direction columns (3, 3), identity if left out."""
        affine = np.eye(4)
        columns = np.eye(3) if directions is None else np.asarray(directions, dtype=np.float64)
        affine[:3, :3] = columns * np.asarray(spacing, dtype=np.float64)
        affine[:3, 3] = origin
        i, j, k = (int(size) for size in shape)
        return cls((i, j, k), affine, frame_of_reference, placed, unit)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along i, j, k (mm)."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def origin(self) -> FloatArray:
        """Patient position of voxel (0, 0, 0)'s centre: (3,), mm, LPS."""
        return np.array(self.affine[:3, 3])

    @property
    def directions(self) -> FloatArray:
        """Unit direction of each index axis as columns: (3, 3), LPS."""
        return np.array(self.affine[:3, :3] / np.asarray(self.spacing))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def orientation(self) -> str:
        """The patient direction to which each index axis mostly runs, e.g. "LPS"."""
        letters = ""
        for index_axis, patient_axis in enumerate(self._patient_axes()):
            towards_plus = self.affine[patient_axis, index_axis] > 0
            letters += _LETTERS[patient_axis][int(towards_plus)]
        return letters

    def _patient_axes(self) -> tuple[int, int, int]:
        """The patient axis that each index axis follows, each used once, the clearest match first."""
        strength = np.abs(self.directions)
        found = [-1, -1, -1]
        for _ in range(3):
            patient_axis, index_axis = np.unravel_index(int(np.argmax(strength)), (3, 3))
            found[int(index_axis)] = int(patient_axis)
            strength[patient_axis, :] = -1.0
            strength[:, index_axis] = -1.0
        return found[0], found[1], found[2]

    def to_patient(self, index: npt.ArrayLike) -> FloatArray:
        """Patient positions (..., 3) in mm LPS of fractional indices (..., 3)."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, position: npt.ArrayLike) -> FloatArray:
        """Fractional indices (..., 3) of patient positions (..., 3) in mm LPS."""
        inverse = np.linalg.inv(self.affine[:3, :3])
        return (np.asarray(position, dtype=np.float64) - self.affine[:3, 3]) @ inverse.T

    def matches(self, other: Grid, tolerance_mm: float = 1e-2) -> bool:
        """Whether both grids put every voxel at the same place, to within `tolerance_mm` at the corners.

        Unplaced grids match when their shapes do.
        """
        if self.shape != other.shape:
            return False
        if not (self.placed and other.placed):
            return True
        corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
        corners = corners * (np.asarray(self.shape) - 1)
        return bool(np.abs(self.to_patient(corners) - other.to_patient(corners)).max() <= tolerance_mm)

    def canonical(self) -> tuple[Grid, tuple[int, int, int], tuple[bool, bool, bool]]:
        """The same lattice with its axes ordered and turned to run L, P, S as nearly as they can.

        Returns:
            The canonical grid; for each canonical axis the index axis it comes from; for each canonical
            axis whether it is reversed. `reorient` applies the two to an array, `restore` undoes them.
            Unplaced grids are returned as they are.
        """
        if not self.placed:
            return self, (0, 1, 2), (False, False, False)
        patient_axes = self._patient_axes()
        order = (patient_axes.index(0), patient_axes.index(1), patient_axes.index(2))
        columns, origin, flips = [], self.affine[:3, 3].copy(), []
        for patient_axis, index_axis in enumerate(order):
            column = self.affine[:3, index_axis]
            flip = bool(column[patient_axis] < 0)
            if flip:
                origin = origin + column * (self.shape[index_axis] - 1)
                column = -column
            columns.append(column)
            flips.append(flip)
        affine = np.eye(4)
        affine[:3, :3] = np.stack(columns, axis=1)
        affine[:3, 3] = origin
        shape = (self.shape[order[0]], self.shape[order[1]], self.shape[order[2]])
        grid = Grid(shape, affine, self.frame_of_reference, self.placed, self.unit)
        return grid, order, (flips[0], flips[1], flips[2])

    def resampled(self, spacing: Sequence[float]) -> Grid:
        """A grid over the same field of view (outer voxel faces kept) with about this spacing (mm).

        Sizes are rounded to whole voxels (at least 1) and the spacing is adjusted so that the field of
        view stays exactly the same.
        """
        extent = np.asarray(self.shape) * np.asarray(self.spacing)
        shape = np.maximum(np.rint(extent / np.asarray(spacing, dtype=np.float64)), 1).astype(int)
        exact = extent / shape
        affine = np.eye(4)
        affine[:3, :3] = self.directions * exact
        corner = self.to_patient((-0.5, -0.5, -0.5))
        affine[:3, 3] = corner + affine[:3, :3] @ np.full(3, 0.5)
        sizes = (int(shape[0]), int(shape[1]), int(shape[2]))
        return Grid(sizes, affine, self.frame_of_reference, self.placed, self.unit)

    def cropped(self, start: Sequence[int], stop: Sequence[int]) -> Grid:
        """The part of the grid from index `start` up to, not including, `stop` (both may lie outside)."""
        affine = np.array(self.affine)
        affine[:3, 3] = self.to_patient(start)
        i, j, k = (int(b) - int(a) for a, b in zip(start, stop, strict=True))
        return Grid((i, j, k), affine, self.frame_of_reference, self.placed, self.unit)

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs to make this grid again."""
        return {
            "shape": list(self.shape),
            "affine": [[float(value) for value in row] for row in self.affine],
            "frame_of_reference": self.frame_of_reference,
            "placed": self.placed,
            "unit": self.unit,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Grid:
        """The grid that `as_json` described."""
        i, j, k = data["shape"]
        return cls((i, j, k), np.array(data["affine"]), data["frame_of_reference"], data["placed"], data["unit"])


def reorient(array: Array, order: Sequence[int], flips: Sequence[bool]) -> Array:
    """The array (i, j, k) or (channels, i, j, k) as a view in the canonical order of `Grid.canonical`."""
    lead = array.ndim - 3
    turned = np.transpose(array, (*range(lead), *(lead + axis for axis in order)))
    steps = (slice(None),) * lead + tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    return turned[steps]


def restore(array: Array, order: Sequence[int], flips: Sequence[bool]) -> Array:
    """Undo `reorient`: a view in the source's own axis order."""
    lead = array.ndim - 3
    steps = (slice(None),) * lead + tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    inverse = np.argsort(order)
    return np.transpose(array[steps], (*range(lead), *(lead + int(axis) for axis in inverse)))
