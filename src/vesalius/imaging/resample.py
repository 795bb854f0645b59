"""Move an array from one grid to another.

Grids whose axes run alike (the usual case: one scan at two spacings) are resampled axis by axis with a
short list of source voxels and weights per target voxel. That is exact, local, so that any slab of the
target can be made from a slab of the source, and needs little more memory than its result. Going to a
coarser spacing widens the kernel by the ratio of the spacings, which is the anti-alias filter. Grids turned
against each other go through `scipy.ndimage.affine_transform`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vesalius.core.grid import Array, FloatArray, Grid

Order = Literal[1, 3]
Float32 = npt.NDArray[np.float32]

_CHUNK_BYTES = 4 << 20  # temporaries of one step stay in the processor's cache
_ALIGNED = 1e-4  # largest difference between unit directions that still counts as the same direction
_EDGE = 1e-3  # voxels by which a position may leave the outermost voxel's face


@dataclass(frozen=True)
class Taps:
    """How one axis of a target is made from the same axis of a source.

    Args:
        index: (targets, support) source voxels of each target voxel, clamped to the axis.
        weight: (targets, support) float32 weights, each row adding up to 1.
        outside: (targets,) True where the target voxel's centre lies beyond the source's outer voxel faces.
    """

    index: npt.NDArray[np.intp]
    weight: Float32
    outside: npt.NDArray[np.bool_]

    def rows(self, start: int, stop: int) -> Taps:
        """The taps of the target voxels from `start` up to, not including, `stop`."""
        return Taps(self.index[start:stop], self.weight[start:stop], self.outside[start:stop])

    def shifted(self, offset: int) -> Taps:
        """The same taps for a source of which the first `offset` voxels are not at hand."""
        return Taps(self.index - offset, self.weight, self.outside)

    @property
    def identity(self) -> bool:
        """Whether every target voxel is the source voxel of the same number."""
        return self.index.shape[1] == 1 and bool((self.index[:, 0] == np.arange(len(self.index))).all())


def _linear(distance: FloatArray) -> FloatArray:
    return np.maximum(1.0 - np.abs(distance), 0.0)


def _cubic(distance: FloatArray) -> FloatArray:
    """Keys' interpolating kernel with a = -1/2 (IEEE Trans. ASSP 29:1153, 1981)."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1.0, near, np.where(x < 2.0, far, 0.0))


_KERNELS: dict[Order, tuple[Callable[[FloatArray], FloatArray], float]] = {
    1: (_linear, 1.0),
    3: (_cubic, 2.0),
}


def axis_taps(size: int, positions: FloatArray, order: Order = 1) -> Taps:
    """Taps that take a source axis of `size` voxels to fractional source positions, evenly spaced.

    Args:
        size: voxels along the source axis.
        positions: (targets,) fractional source index of each target voxel's centre.
        order: 1 linear, 3 cubic. A step above one source voxel widens the kernel by that step.
    """
    nearest = np.rint(positions).astype(np.intp)
    outside = (positions < -0.5 - _EDGE) | (positions > size - 0.5 + _EDGE)
    if np.abs(positions - nearest).max() < 1e-4:
        index = np.clip(nearest, 0, size - 1)[:, None]
        step_is_one = len(positions) == 1 or abs(positions[1] - positions[0]) < 1.5
        if step_is_one:
            return Taps(index, np.ones(index.shape, np.float32), outside)
    kernel, radius = _KERNELS[order]
    step = abs(float(positions[1] - positions[0])) if len(positions) > 1 else 1.0
    stretch = max(step, 1.0)
    reach = int(np.ceil(radius * stretch))
    offsets = np.arange(-reach, reach + 2)
    index = np.floor(positions).astype(np.intp)[:, None] + offsets
    weight = kernel((index - positions[:, None]) / stretch)
    used = np.abs(weight).max(axis=0) > 0
    index, weight = index[:, used], weight[:, used]
    weight = weight / weight.sum(axis=1, keepdims=True)
    return Taps(np.clip(index, 0, size - 1), weight.astype(np.float32), outside)


def grid_taps(source: Grid, target: Grid, order: Order = 1) -> tuple[Taps, Taps, Taps] | None:
    """Taps along i, j, k that take an array on `source` to `target`; None where their axes run apart."""
    if not (source.placed and target.placed):
        source, target = _at_origin(source), _at_origin(target)
    if np.abs(source.directions - target.directions).max() > _ALIGNED:
        return None
    first = source.to_index(target.to_patient((0.0, 0.0, 0.0)))
    ratio = np.asarray(target.spacing) / np.asarray(source.spacing)
    i, j, k = (
        axis_taps(source.shape[axis], first[axis] + ratio[axis] * np.arange(target.shape[axis]), order)
        for axis in range(3)
    )
    return i, j, k


def _at_origin(grid: Grid) -> Grid:
    """The grid over the same extent with its outer corner at zero: all that is known of unplaced images."""
    return Grid.from_parts(grid.shape, spacing=grid.spacing, origin=[size / 2 for size in grid.spacing])


def apply_taps(array: Array, axis: int, taps: Taps, out: Float32 | None = None) -> Float32:
    """The array with one axis resampled: float32, written into `out` if given."""
    shape = (*array.shape[:axis], len(taps.index), *array.shape[axis + 1 :])
    result = np.empty(shape, np.float32) if out is None else out
    if taps.identity and array.shape == shape:
        result[...] = array
        return result
    along = next((other for other in range(array.ndim) if other != axis and array.shape[other] > 1), None)
    if along is None:
        _gather(array, axis, taps, result)
        return result
    planes = array.shape[along]
    step = max(1, int(_CHUNK_BYTES * planes / max(result.nbytes, 1)))
    for start in range(0, planes, step):
        part = (slice(None),) * along + (slice(start, start + step),)
        _gather(array[part], axis, taps, result[part])
    return result


def _gather(array: Array, axis: int, taps: Taps, out: Float32) -> None:
    weights = taps.weight.reshape(*(1,) * axis, *taps.weight.shape, *(1,) * (array.ndim - axis - 1))
    for number in range(taps.index.shape[1]):
        weight = np.take(weights, number, axis=axis + 1)
        values = np.take(array, taps.index[:, number], axis=axis)
        if number == 0:
            np.multiply(values, weight, out=out, casting="unsafe")
        else:
            out += (values * weight).astype(np.float32, copy=False)


def resample(array: Array, source: Grid, target: Grid, *, order: Order = 1, fill: float | None = None) -> Float32:
    """An intensity array moved to another grid by patient position.

    Args:
        array: (i, j, k) or (channels, i, j, k) on `source`.
        source: grid of the array.
        target: grid of the result; unplaced grids are taken to cover the same extent.
        order: 1 linear, 3 cubic; both smooth first where the target is coarser.
        fill: value beyond the source's outer voxel faces; the array's minimum if left out.

    Returns:
        float32 with the target's shape; exactly the input's values where the grids match.
    """
    if source.matches(target):
        return np.array(array, dtype=np.float32)
    taps = grid_taps(source, target, order)
    if taps is None:
        return _resample_turned(array, source, target, order, fill)
    lead = array.ndim - 3
    outside = [tap.outside for tap in taps]
    least = float(array.min()) if fill is None and any(mask.any() for mask in outside) else fill or 0.0
    result = array
    # Axes that shrink go first: the rest then has less to do.
    for axis in sorted(range(3), key=lambda axis: target.shape[axis] / source.shape[axis]):
        if not (taps[axis].identity and source.shape[axis] == target.shape[axis]):
            result = apply_taps(result, lead + axis, taps[axis])
    result = result.astype(np.float32, copy=result is array)
    for axis, mask in enumerate(outside):
        if mask.any():
            result[(slice(None),) * (lead + axis) + (mask,)] = least
    return result


def _resample_turned(array: Array, source: Grid, target: Grid, order: Order, fill: float | None) -> Float32:
    """`resample` for grids turned against each other."""
    from scipy import ndimage

    step = np.linalg.inv(source.affine[:3, :3]) @ target.affine[:3, :3]
    first = source.to_index(target.to_patient((0.0, 0.0, 0.0)))
    sigma = np.maximum(np.abs(step).max(axis=1) - 1.0, 0.0) / 2
    channels = array if array.ndim == 4 else array[None]
    least = float(array.min()) if fill is None else fill
    result = np.empty((len(channels), *target.shape), np.float32)
    for channel, out in zip(channels, result, strict=True):
        values = np.asarray(channel, dtype=np.float32)
        if sigma.any():
            values = ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=3.0)
        ndimage.affine_transform(
            values, step, first, output_shape=target.shape, output=out, order=order, mode="nearest"
        )
    j, k = np.meshgrid(np.arange(target.shape[1]), np.arange(target.shape[2]), indexing="ij")
    upper = np.asarray(source.shape) - 0.5 + _EDGE
    for i in range(target.shape[0]):
        inside = np.ones(j.shape, bool)
        for axis in range(3):
            position = first[axis] + step[axis, 0] * i + step[axis, 1] * j + step[axis, 2] * k
            inside &= (position >= -0.5 - _EDGE) & (position <= upper[axis])
        result[:, i][:, ~inside] = least
    return result if array.ndim == 4 else result[0]


def resample_label(array: Array, source: Grid, target: Grid) -> Array:
    """A label map moved to another grid: each class interpolated linearly, the strongest class wins.

    Args:
        array: (i, j, k) integers on `source`.
        source: grid of the array.
        target: grid of the result.

    Returns:
        The target's shape in the array's type; 0 outside the source. Exactly the input where the grids
        match; where two classes are equally strong, the lower value.
    """
    if source.matches(target):
        return np.array(array)
    best = np.full(target.shape, -1.0, np.float32)
    result = np.zeros(target.shape, array.dtype)
    for value in np.unique(array):
        fill = 1.0 if value == 0 else 0.0
        share = resample((array == value).astype(np.float32), source, target, fill=fill)
        stronger = share > best + 1e-6
        result[stronger] = value
        np.maximum(best, share, out=best)
    return result


def overlap(first: Grid, second: Grid) -> float:
    """Share of the first grid's extent (0..1) that lies inside the second's, on a lattice of 16^3 points."""
    ticks = [np.linspace(-0.5, size - 0.5, 33)[1::2] for size in first.shape]
    points = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1)
    index = second.to_index(first.to_patient(points))
    inside = (index >= -0.5 - _EDGE) & (index <= np.asarray(second.shape) - 0.5 + _EDGE)
    return float(inside.all(axis=-1).mean())
