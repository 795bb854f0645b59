"""Volumes as the rivals work on them: canonical axes, a bounded number of voxels, and the way back.

Images are aligned in *frame coordinates*: patient millimetres (LPS) for volumes, millimetres along the two
axes of the plane for images of a single slice, wherever in space that slice stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, FloatArray, Grid, reorient, restore
from vesalius.core.image import Image
from vesalius.imaging.prepare import Normalisation, Preparation, prepare
from vesalius.imaging.resample import resample, resample_label

Float32 = npt.NDArray[np.float32]

_SLAB_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Frame:
    """The axes along which a grid extends, and where its voxels stand in frame coordinates.

    Args:
        axes: index axes with more than one voxel, 2 or 3 of them.
        shape: voxels along these axes.
        affine: (d + 1, d + 1), index along these axes to frame coordinates (mm).
    """

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    affine: FloatArray

    @classmethod
    def of(cls, grid: Grid) -> Frame:
        """The frame of a canonical grid; grids cropped from one another share their coordinates.

        Raises:
            UnusableInput: the image extends along fewer than two axes.
        """
        axes = tuple(axis for axis in range(3) if grid.shape[axis] > 1)
        if len(axes) < 2:
            raise UnusableInput("The image is a single line of voxels.", remedy="Export it again.")
        shape = tuple(grid.shape[axis] for axis in axes)
        if len(axes) == 3:
            return cls(axes, shape, np.array(grid.affine))
        affine = np.diag([*(grid.spacing[axis] for axis in axes), 1.0])
        affine[:2, 2] = (grid.directions.T @ grid.origin)[list(axes)]
        return cls(axes, shape, affine)

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return len(self.axes)

    @property
    def spacing(self) -> FloatArray:
        """Voxel size along each axis of the frame (mm)."""
        return np.asarray(np.linalg.norm(self.affine[:-1, :-1], axis=0))

    @property
    def corners(self) -> FloatArray:
        """(2^d, d) frame coordinates of the outermost voxels' centres."""
        unit = np.stack(np.meshgrid(*([0.0, 1.0],) * self.dimension, indexing="ij"), axis=-1)
        index = unit.reshape(-1, self.dimension) * (np.asarray(self.shape) - 1)
        return transform(self.affine, index)

    def points(self) -> FloatArray:
        """(voxels, d) frame coordinates of every voxel, in the order of a raveled array."""
        index = np.indices(self.shape).reshape(self.dimension, -1).T
        return transform(self.affine, index)


def transform(matrix: Array, points: Array) -> FloatArray:
    """Points (n, d) moved by a homogeneous (d + 1, d + 1) matrix."""
    return np.asarray(points @ matrix[:-1, :-1].T + matrix[:-1, -1])


@dataclass(frozen=True, eq=False)
class Volume:
    """Channels (channels, i, j, k) float32 on a canonical grid."""

    array: Float32
    grid: Grid

    @property
    def frame(self) -> Frame:
        """Where its voxels stand in frame coordinates."""
        return Frame.of(self.grid)

    def at(self, spacing: Sequence[float]) -> Volume:
        """The volume at about this spacing (mm); axes of one voxel and finer axes are kept."""
        own = self.grid.spacing
        wanted = [
            max(aim, have) if size > 1 and aim > 1.01 * have else have
            for have, aim, size in zip(own, spacing, self.grid.shape, strict=True)
        ]
        return self if tuple(wanted) == own else self.on(self.grid.resampled(wanted))

    def on(self, grid: Grid) -> Volume:
        """The volume on another grid, by patient position."""
        return Volume(resample(self.array, self.grid, grid), grid)

    def sample(self, points: FloatArray, fill: float = 0.0) -> Float32:
        """(channels, n) linear values at frame coordinates (n, d); `fill` beyond the outermost voxels."""
        from scipy import ndimage

        frame = self.frame
        index = transform(np.linalg.inv(frame.affine), points).T
        flat = self.array.reshape(len(self.array), *frame.shape)
        values = [ndimage.map_coordinates(part, index, order=1, cval=fill, output=np.float32) for part in flat]
        return np.stack(values)


def read_inputs(images: Sequence[Image], inputs: Sequence[str], *, scale: bool = False) -> Volume:
    """A case's inputs on the first one's canonical grid, at its own spacing, brought to a common range.

    Args:
        images: in the order of `inputs`.
        inputs: role of each image.
        scale: 0 to 1 between the 0.5 and 99.5 percentiles, instead of zero mean and unit deviation.

    Raises:
        UnusableInput: an image is constant, empty, or lies elsewhere than the first.
    """
    recipe = Normalisation("unit") if scale else Normalisation("zscore")
    prepared = prepare(images, Preparation(tuple(inputs), None, (recipe,) * len(inputs)))
    return Volume(prepared.array, prepared.grid)


def read_truth(label: Image, grid: Grid) -> npt.NDArray[np.int32]:
    """A case's label map (i, j, k) on a canonical working grid."""
    canonical, order, flips = label.grid.canonical()
    return resample_label(reorient(label.read().astype(np.int32), order, flips), canonical, grid)


def budget_spacing(grid: Grid, voxels: int, extent: Sequence[float] | None = None) -> tuple[float, ...]:
    """Spacing (mm) at which a field of view has at most about `voxels` voxels; the finest axes give way first.

    Args:
        grid: its spacing is never refined.
        voxels: budget.
        extent: size of the field of view (mm), the grid's own if left out.
    """
    own = np.asarray(grid.spacing)
    sizes = np.asarray(grid.shape) * own if extent is None else np.asarray(extent)
    low, high = float(own.min()), float(max(sizes.max(), own.max()))
    if np.prod(np.maximum(sizes / own, 1.0)) <= voxels:
        return tuple(float(value) for value in own)
    for _ in range(40):
        middle = (low + high) / 2
        fits = np.prod(np.maximum(sizes / np.maximum(own, middle), 1.0)) <= voxels
        low, high = (low, middle) if fits else (middle, high)
    return tuple(float(value) for value in np.maximum(own, high))


def label_map(shares: Float32, grid: Grid, source: Grid, values: Sequence[int]) -> Array:
    """The strongest class at every voxel of an image's own grid.

    Args:
        shares: (classes, i, j, k) on `grid`; background's share is what is left to 1.
        grid: canonical working grid; beyond it is background.
        source: the image's own grid, in its own index order.
        values: label value of each class.

    Returns:
        (i, j, k) integers in the source's index order, made slab by slab.
    """
    canonical, order, flips = source.canonical()
    kind = np.uint8 if max(values, default=0) < 256 else np.int32
    out = np.zeros(canonical.shape, kind)
    table = np.array([0, *values]).astype(kind)
    plane = 4 * (len(values) + 1) * canonical.shape[0] * canonical.shape[1]
    step = max(1, _SLAB_BYTES // plane)
    for start in range(0, canonical.shape[2], step):
        stop = min(start + step, canonical.shape[2])
        slab = canonical.cropped((0, 0, start), (*canonical.shape[:2], stop))
        part = resample(shares, grid, slab, fill=0.0)
        everything = np.concatenate([np.maximum(1.0 - part.sum(axis=0, keepdims=True), 0.0), part])
        out[:, :, start:stop] = table[everything.argmax(axis=0)]
    return np.ascontiguousarray(restore(out, order, flips))
