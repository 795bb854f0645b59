"""The part of an image that features are taken of, brought to a bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, FloatArray

Flags = npt.NDArray[np.bool_]

PLANE_SIDE = 256
VOLUME_SIDE = 64
_MARGIN = 0.15  # of the outline's box, kept around it for what surrounds a lesion


@dataclass(frozen=True)
class Region:
    """What features are computed from.

    Args:
        channels: (c, i, j) or (c, i, j, k) intensities in the source's unit, at most 256 pixels a side in a
            plane and 64 in a volume.
        inside: the voxels that count, of the same shape without channels; never empty.
        spacing: mm (or pixels) between voxels, by axis.
        outlined: `inside` is an outline and not the whole image.
    """

    channels: FloatArray
    inside: Flags
    spacing: FloatArray
    outlined: bool

    @property
    def grey(self) -> FloatArray:
        """One channel: luminance of colour (ITU-R BT.601), else the mean of the channels."""
        if len(self.channels) == 3:
            grey: FloatArray = np.tensordot([0.299, 0.587, 0.114], self.channels, axes=1)
            return grey
        mean: FloatArray = self.channels.mean(axis=0)
        return mean

    @property
    def dimension(self) -> int:
        """2 for planes, 3 for volumes."""
        return self.inside.ndim


def region(array: Array, spacing: Sequence[float], mask: Array | None = None) -> Region:
    """Bring an image to the size that features are taken at, cut to the outline where there is one.

    Pixels are averaged over boxes, so that no detail is skipped over; images are never enlarged.

    Args:
        array: (channels, i, j, k), any numeric type.
        spacing: between voxels along i, j, k.
        mask: (i, j, k), non-zero inside; None for the whole image.

    Raises:
        UnusableInput: the mask is of another shape or empty.
    """
    if mask is not None:
        if mask.shape != array.shape[1:]:
            raise UnusableInput("An outline does not fit its image.", remedy="Draw it on the image's own grid.")
        if not mask.any():
            raise UnusableInput("An outline is empty.", remedy="Leave it away where there is nothing to outline.")
        window = _window(mask != 0)
        array, mask = array[(slice(None), *window)], mask[window] != 0
    axes = _axes(array.shape[1:])
    flat = array.reshape(len(array), *(array.shape[1 + axis] for axis in axes))
    step = np.asarray(spacing, np.float64)[list(axes)]
    sizes = working_sizes(flat.shape[1:], step, PLANE_SIDE if len(axes) == 2 else VOLUME_SIDE)
    channels = np.stack([shrunk(finite(channel), sizes) for channel in flat]).astype(np.float64)
    inside = np.ones(sizes, bool)
    if mask is not None:
        share = shrunk(mask.reshape(flat.shape[1:]).astype(np.float32), sizes)
        inside = share >= min(0.5, float(share.max()))
    return Region(channels, inside, step * np.array(flat.shape[1:]) / np.array(sizes), mask is not None)


def finite(array: Array) -> npt.NDArray[np.float32]:
    """As 32-bit floats; what is not a number becomes the lowest value that is one, or 0."""
    values = np.asarray(array, np.float32)
    good = np.isfinite(values)
    if good.all():
        return values
    return np.where(good, values, values[good].min() if good.any() else np.float32(0))


def working_sizes(shape: Sequence[int], spacing: FloatArray, side: int) -> tuple[int, ...]:
    """Sizes of at most `side` voxels on the longest edge, as nearly isotropic as the source allows."""
    extent = np.asarray(shape) * spacing
    target = float(extent.max()) / side
    return tuple(max(1, min(int(size), round(float(e) / target))) for size, e in zip(shape, extent, strict=True))


def shrunk(array: npt.NDArray[np.float32], sizes: Sequence[int]) -> npt.NDArray[np.float32]:
    """Average over boxes that share the extent evenly; voxels that lie in two are shared out exactly."""
    for axis, (old, new) in enumerate(zip(array.shape, sizes, strict=True)):
        if new < old:
            weights = _boxes(old, new)
            array = np.moveaxis(np.tensordot(weights, array, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(array)


def _boxes(size: int, count: int) -> npt.NDArray[np.float32]:
    bounds = np.linspace(0, size, count + 1)
    voxels = np.arange(size)
    upper = np.minimum(bounds[1:, None], voxels + 1)
    lower = np.maximum(bounds[:-1, None], voxels)
    share: npt.NDArray[np.float32] = (np.maximum(upper - lower, 0.0) * (count / size)).astype(np.float32)
    return share


def _axes(shape: Sequence[int]) -> tuple[int, ...]:
    """The axes that count: all of a volume; of a plane the two that are left without a single-voxel one."""
    if min(shape) > 1:
        return (0, 1, 2)
    thin = max(axis for axis in range(3) if shape[axis] == 1)
    return tuple(axis for axis in range(3) if axis != thin)


def _window(inside: Flags) -> tuple[slice, slice, slice]:
    """The outline's box with a margin, so that a small lesion keeps its resolution."""
    found = []
    for axis in range(3):
        hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = max(2, round(_MARGIN * (hit[-1] - hit[0] + 1))) if inside.shape[axis] > 1 else 0
        found.append(slice(max(0, int(hit[0]) - margin), int(hit[-1]) + 1 + margin))
    return found[0], found[1], found[2]
