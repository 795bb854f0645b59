"""One virtual person's head: how it differs from the average, drawn first and applied later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesalius.core.grid import Grid
from vesalius.virtual.anatomy import Anatomy, Floats

_FIELD_MM = 4.0  # spacing of the lattice that displacements are drawn on
_SCALES = ((28.0, 3.0), (9.0, 1.3))  # (smoothness, typical displacement), both in mm


@dataclass(frozen=True)
class Head:
    """What makes one head different from the average.

    Args:
        age: years; fluid grows and grey matter shrinks with it.
        scale: size along x, y, z relative to the average.
        tilt: rotation about x, y, z in the scanner (degrees).
        shift: position of the anterior commissure in the scanner (mm, LPS).
        skull: thickness (mm).
        scalp: thickness (mm).
        shape_seed: draws the smooth displacements.
    """

    age: float
    scale: tuple[float, float, float]
    tilt: tuple[float, float, float]
    shift: tuple[float, float, float]
    skull: float
    scalp: float
    shape_seed: int


@dataclass(frozen=True)
class Sampled:
    """A head on a scanner's grid: tissue shares (3, i, j, k), texture, skull and scalp shares (i, j, k)."""

    tissues: Floats
    texture: Floats
    skull: Floats
    scalp: Floats


def _three(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    a, b, c = (float(value) for value in values)
    return a, b, c


def draw_head(rng: np.random.Generator) -> Head:
    """A random head."""
    overall = rng.normal(1.0, 0.035)
    return Head(
        age=float(rng.uniform(22, 84)),
        scale=_three(overall * rng.normal(1.0, 0.02, 3)),
        tilt=_three(rng.normal(0.0, 4.0, 3)),
        shift=_three(rng.normal(0.0, 4.0, 3)),
        skull=float(rng.uniform(4.5, 7.0)),
        scalp=float(rng.uniform(3.5, 7.0)),
        shape_seed=int(rng.integers(2**31)),
    )


def _rotation(degrees: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """(3, 3): about x, then y, then z."""
    result = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[[a, b], [a, b]] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def _displacements(head: Head, shape: tuple[int, ...]) -> Floats:
    """(3, i, j, k) smooth random displacement in mm on a lattice of 4 mm."""
    from scipy import ndimage

    rng = np.random.default_rng(head.shape_seed)
    total = np.zeros((3, *shape), dtype=np.float32)
    for smoothness, size in _SCALES:
        for axis in range(3):
            noise = rng.standard_normal(shape, dtype=np.float32)
            smooth = ndimage.gaussian_filter(noise, smoothness / _FIELD_MM, mode="wrap")
            total[axis] += size * smooth / smooth.std()
    return total


def _into_template(head: Head, anatomy: Anatomy, grid: Grid) -> Floats:
    """(3, i, j, k) index in the template of every voxel of `grid`: pose and size undone, then displaced."""
    from scipy import ndimage

    index = np.stack(np.meshgrid(*(np.arange(size) for size in grid.shape), indexing="ij"), axis=-1)
    position = grid.to_patient(index) - np.asarray(head.shift)
    position = position @ _rotation(head.tilt) / np.asarray(head.scale)
    where = np.moveaxis(anatomy.grid.to_index(position), -1, 0)
    lattice = tuple(int(size / _FIELD_MM) + 1 for size in anatomy.grid.shape)
    field = _displacements(head, lattice)
    moved = [ndimage.map_coordinates(field[axis], where / _FIELD_MM, order=1, mode="nearest") for axis in range(3)]
    return np.asarray(where + np.stack(moved), dtype=np.float32)


def _aged(tissues: Floats, age: float) -> Floats:
    """Move shares from brain to fluid with age (0 at 50 years)."""
    weight = np.array([1.0, 1.0, np.exp((age - 50.0) / 45.0)], dtype=np.float32)[:, None, None, None]
    weighted = tissues * weight
    return np.asarray(weighted * tissues.sum(axis=0) / np.maximum(weighted.sum(axis=0), 1e-6))


def sample_head(head: Head, anatomy: Anatomy, grid: Grid) -> Sampled:
    """The head as it lies on a scanner's grid (patient mm, LPS), voxel by voxel at the voxels' centres."""
    from scipy import ndimage

    where = _into_template(head, anatomy, grid)

    def at(volume: Floats, outside: float = 0.0) -> Floats:
        sampled = ndimage.map_coordinates(volume, where, order=1, mode="constant", cval=outside)
        return np.asarray(sampled, dtype=np.float32)

    tissues = _aged(np.stack([at(share) for share in anatomy.tissues]), head.age)
    distance = at(anatomy.distance, outside=1e3)
    # Soft steps of about a voxel, so that the shells do not look like stairs.
    outside_brain = 1.0 - tissues.sum(axis=0)
    beyond_skull = np.clip(distance - head.skull, 0.0, 1.0)
    beyond_scalp = np.clip(distance - head.skull - head.scalp, 0.0, 1.0)
    return Sampled(
        tissues=tissues,
        texture=at(anatomy.texture),
        skull=np.asarray(outside_brain * (1.0 - beyond_skull), dtype=np.float32),
        scalp=np.asarray(beyond_skull * (1.0 - beyond_scalp), dtype=np.float32),
    )
