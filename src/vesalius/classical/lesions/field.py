"""An image as the filters see it: bounded in size, its ground filled, a breast's chest wall at the left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesalius.classical.radiomics.region import finite, shrunk, working_sizes
from vesalius.core.grid import Array, FloatArray
from vesalius.core.image import Image
from vesalius.imaging.mammogram import find_breast, looks_like_mammogram

Float32 = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

FINE = 3  # how much finer than the field the image is in which points are looked for, where the source allows


@dataclass(frozen=True, eq=False)
class Field:
    """A prepared image.

    Args:
        values: (i, j) or (i, j, k) intensities; the middle half inside spans about one unit. Outside, the
            nearest value inside goes on, so that the outline of the body is no edge.
        inside: the body; everywhere where nothing tells it from the ground.
        muscle: the pectoral muscle of a mammogram, else nowhere.
        fine: the same at up to `FINE` times the resolution.
        step: source pixels per pixel of the field, by axis.
        axes: the source's axes that are kept.
        flipped: the first axis is reversed.
        shape: of the source.
    """

    values: Float32
    inside: Flags
    muscle: Flags
    fine: Float32
    step: FloatArray
    axes: tuple[int, ...]
    flipped: bool
    shape: tuple[int, int, int]

    def to_index(self, places: FloatArray) -> FloatArray:
        """(n, 3) positions in the source's index space of (n, d) positions in the field."""
        turned = np.array(places, np.float64)
        if self.flipped:
            turned[:, 0] = self.values.shape[0] - 1 - turned[:, 0]
        found = np.zeros((len(turned), 3))
        found[:, self.axes] = (turned + 0.5) * self.step - 0.5
        return found

    def from_index(self, places: FloatArray) -> FloatArray:
        """(n, d) positions in the field of (n, 3) positions in the source's index space."""
        found: FloatArray = (np.asarray(places, np.float64)[:, self.axes] + 0.5) / self.step - 0.5
        if self.flipped:
            found[:, 0] = self.values.shape[0] - 1 - found[:, 0]
        return found


def read_field(image: Image, side: int) -> Field:
    """Prepare an image.

    Args:
        image: grey or colour, plane or volume; channels are averaged.
        side: most pixels along the field's longer edge.
    """
    array = image.read()
    grey = finite(array[0] if len(array) == 1 else array.mean(axis=0, dtype=np.float32))
    axes = tuple(axis for axis in range(3) if grey.shape[axis] > 1) or (0, 1)
    if len(axes) == 1:
        axes = (axes[0], 1 if axes[0] == 0 else 0)
        axes = (min(axes), max(axes))
    flat = grey.reshape([grey.shape[axis] for axis in axes])
    spacing = np.asarray(image.grid.spacing)[list(axes)]
    fine = shrunk(flat, working_sizes(flat.shape, spacing, side * FINE)) if len(axes) == 2 else flat
    small = shrunk(fine, working_sizes(flat.shape, spacing, side))
    inside, muscle, flipped = _body(small)
    if flipped:
        small, fine, inside, muscle = small[::-1], fine[::-1], inside[::-1], muscle[::-1]
    if len(axes) == 3:
        fine = small
    low, high = np.percentile(small[inside], (25, 75)) if inside.any() else (0.0, 0.0)
    width = float(high - low) or float(small[inside].std()) or 1.0
    values = _filled((small - float(low)) / width, inside)
    step = np.array(flat.shape) / np.array(small.shape)
    return Field(
        values, inside, muscle, np.asarray((fine - float(low)) / width, np.float32), step, axes, flipped,
        (grey.shape[0], grey.shape[1], grey.shape[2]),
    )  # fmt: skip


def _body(small: Float32) -> tuple[Flags, Flags, bool]:
    """The body, its muscle and whether the chest wall lies at the far end; everything where nothing tells."""
    everywhere, nowhere = np.ones(small.shape, bool), np.zeros(small.shape, bool)
    if small.ndim == 2 and min(small.shape) >= 16 and looks_like_mammogram(small):
        breast = find_breast(small)
        if breast is not None:
            return breast.mask, breast.muscle, breast.wall_right
    return everywhere, nowhere, False


def _filled(values: Array, inside: Flags) -> Float32:
    if inside.all():
        return np.asarray(values, np.float32)
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)], np.float32)


def radii_of(smallest: float, largest: float, count: int) -> tuple[float, ...]:
    """Radii that rise by a constant factor."""
    return tuple(float(r) for r in np.geomspace(smallest, max(largest, smallest * 1.01), count))
