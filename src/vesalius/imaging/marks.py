"""Marks that a device burned into a plane, hidden: the ground around the field of view, callipers, scales, text.

A mark is drawn, not imaged: it is thin, falls off within a pixel or two to both of its sides, and has the
brightest values of the plane or a colour that tissue has not. Bright lines of tissue are as thin, but fall off
slowly; calcifications are as sharp, but are dots and not strokes. What is found is filled with the tissue
beside it, mirrored at the mark's edge, so that its texture goes on. Where the ground is flat, everything
beyond the convex hulls of the large bright regions (the fan of a transducer, the field of a collimator) is
ground.

Marks that are as faint, as broad or as small as tissue stay, and whoever knows where to look may see where
something was filled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vesalius.core.case import Case
from vesalius.core.grid import Array, reorient, restore
from vesalius.core.image import Image, Kind

Bools = npt.NDArray[np.bool_]
Greys = npt.NDArray[np.int16]

_LEAST = 64  # pixels of the shorter side; on smaller planes a stroke and a spot are the same
_EDGE = 1600  # pixels of the longer side that marks are looked for on; larger planes are averaged first
_FLAT = 3  # of 255: how far ground may scatter, by compression
_REGION = 0.02  # share of the plane that a region of tissue takes at least
_BRIGHT, _STEEP = 160, 80  # of 255: a stroke's least value, and its least fall to both of its sides
_BRIGHT_BESIDE, _STEEP_BESIDE, _GENTLE = 130, 55, 45  # the same of what touches a stroke
_ALONG = 30  # of 255: the most that it falls along itself
_STEEP_COLOUR = 40  # of 255: the least colour of a mark beside what surrounds it
_FEW = 4  # pixels that a stroke has at least, on a plane of 320 pixels
_MOST_COLOUR = 0.1  # share of coloured pixels above which colour is no sign of a mark


def hide_marks(planes: Array) -> Array:
    """The plane without its marks; the same array where there are none.

    Args:
        planes: (channels, i, j, 1) intensities, brighter than their ground.

    Returns:
        The same shape and number type.
    """
    if planes.shape[-1] != 1 or min(planes.shape[1:3]) < _LEAST:
        return planes
    step = -(-max(planes.shape[1:3]) // _EDGE)
    small = _averaged(planes[..., 0], step)
    greys, colour = _greys(small)
    if greys is None:
        return planes
    strokes = _strokes(greys, colour)
    ground = int(greys.min())
    outside = _outside(greys, ground)
    strokes &= ~outside
    if not strokes.any() and not (outside & (greys > ground)).any():
        return planes
    filled = _filled(small, strokes)
    filled[:, outside] = small[:, greys == ground][:, :1]
    changed = strokes | outside
    return _put_back(planes, filled, changed, step)


def _averaged(planes: Array, step: int) -> npt.NDArray[np.float32]:
    """(channels, i, j) averaged over squares of `step` pixels."""
    if step == 1:
        return planes.astype(np.float32)
    channels, i, j = planes.shape
    wide = np.pad(planes, ((0, 0), (0, -i % step), (0, -j % step)), mode="edge")
    squares = wide.reshape(channels, wide.shape[1] // step, step, wide.shape[2] // step, step)
    averaged: npt.NDArray[np.float32] = squares.mean((2, 4), dtype=np.float32)
    return averaged


def _greys(planes: npt.NDArray[np.float32]) -> tuple[Greys | None, Greys | None]:
    """(i, j) brightness from 0 to 255, and how coloured each pixel is where colour is rare; None without contrast."""
    low, high = float(planes.min()), float(planes.max())
    if not np.isfinite([low, high]).all() or high <= low:
        return None, None
    scaled = ((planes - low) * (255 / (high - low))).astype(np.int16)
    if len(scaled) == 1:
        return scaled[0], None
    spread = scaled.max(0) - scaled.min(0)
    rare = 0 < (spread > _STEEP_COLOUR).mean() < _MOST_COLOUR
    return scaled.max(0), spread if rare else None


def _strokes(greys: Greys, colour: Greys | None) -> Bools:
    """Pixels of thin strokes."""
    from scipy import ndimage

    reach = max(2, round(max(greys.shape) / 200))
    scale = max(1.0, max(greys.shape) / 320)
    falls = _falls(greys, reach)
    ridge = np.maximum.reduce(falls)
    weak, sure = (ridge > _STEEP_BESIDE) & (greys > _BRIGHT_BESIDE), (ridge > _STEEP) & (greys > _BRIGHT)
    drawn = [np.where(sure & (fall > _STEEP) & (other < _ALONG), 1, 0) for fall, other in _crossed(falls)]
    if colour is not None:
        tinted = np.maximum.reduce(_falls(colour, 2 * reach)) > _STEEP_COLOUR
        weak |= tinted
        drawn[1] = np.where(tinted, 1, drawn[1])
    if not any(map(np.any, drawn)):
        return np.zeros(greys.shape, bool)
    joined = ndimage.maximum_filter(weak.view(np.uint8), 2 * reach + 1)
    labels, number = ndimage.label(joined, np.ones((3, 3), int))
    flat, ups, diagonal, other = (np.bincount(labels.ravel(), one.ravel(), number + 1) for one in drawn)
    few = _FEW * scale
    # Upright strokes give a mark away by themselves: an interface that lies along the beam echoes little.
    kept = (ups >= 2 * few) | (np.minimum(flat, ups) >= few) | (np.minimum(diagonal, other) >= few)
    kept[0] = False
    marks: Bools = kept[labels] & (weak | (ridge > _GENTLE))
    wider: Bools = ndimage.maximum_filter(marks.view(np.uint8), 3).view(bool)
    return wider


def _crossed(falls: list[Greys]) -> list[tuple[Greys, Greys]]:
    """For strokes along i, along j, and along both diagonals: the fall across the stroke and that along it."""
    i, j, down, up = falls
    return [(j, i), (i, j), (up, down), (down, up)]


def _falls(values: Greys, reach: int) -> list[Greys]:
    """How far each pixel stands above both of its neighbours at `reach`, along i, j and both diagonals."""
    wide = np.pad(values, reach)
    i, j = values.shape

    def moved(a: int, b: int) -> Greys:
        return wide[reach * (1 + a) : reach * (1 + a) + i, reach * (1 + b) : reach * (1 + b) + j]

    return [values - np.maximum(moved(a, b), moved(-a, -b)) for a, b in ((1, 0), (0, 1), (1, 1), (1, -1))]


def _outside(greys: Greys, ground: int) -> Bools:
    """Beyond the field of view; nowhere true where the ground is not flat or nothing of it is seen."""
    from scipy import ndimage

    nowhere = np.zeros(greys.shape, bool)
    bright = greys > ground + _FLAT
    if bright.mean() > 1 - _REGION:
        return nowhere
    step = -(-max(greys.shape) // 320)
    coarse = bright[::step, ::step]
    regions, number = ndimage.label(ndimage.binary_opening(coarse, np.ones((5, 5), bool)))
    large = [n for n in range(1, number + 1) if (regions == n).mean() > _REGION]
    if not large:
        return nowhere
    from skimage.morphology import convex_hull_image

    field = np.zeros(coarse.shape, bool)
    for n in large:
        region = ndimage.binary_dilation(regions == n, np.ones((3, 3), bool))
        field |= convex_hull_image(region)  # type: ignore[no-untyped-call]
    fine = np.repeat(np.repeat(field, step, 0), step, 1)[: greys.shape[0], : greys.shape[1]]
    return ~fine


def _filled(planes: npt.NDArray[np.float32], marks: Bools) -> npt.NDArray[np.float32]:
    """(channels, i, j) whose marks show what lies as far beyond their nearest edge, else that edge."""
    from scipy import ndimage

    if not marks.any():
        return planes.copy()
    nearest = ndimage.distance_transform_edt(marks, return_distances=False, return_indices=True)
    places = np.array(np.nonzero(marks))
    edge = nearest[:, marks]
    mirrored = np.clip(2 * edge - places, 0, np.array(marks.shape)[:, None] - 1)
    source = np.where(marks[tuple(mirrored)], edge, mirrored)
    filled = planes.copy()
    filled[:, places[0], places[1]] = planes[:, source[0], source[1]]
    return filled


def _put_back(planes: Array, filled: npt.NDArray[np.float32], changed: Bools, step: int) -> Array:
    """The filled values where something changed, at the plane's own size and number type."""
    i, j = planes.shape[1:3]
    if step > 1:
        changed = np.repeat(np.repeat(changed, step, 0), step, 1)[:i, :j]
        filled = np.repeat(np.repeat(filled, step, 1), step, 2)[:, :i, :j]
    result = planes.copy()
    result[:, changed, 0] = filled[:, changed].astype(planes.dtype)
    return result


@dataclass(frozen=True)
class Unmarked:
    """Pixels of an image without its marks, for whoever looks at images as a preparation that hides them does."""

    image: Image

    def read(self) -> Array:
        """(channels, i, j, k) in the grid's index order."""
        array = self.image.read()
        _, order, flips = self.image.grid.canonical()
        turned = reorient(array if array.ndim == 4 else array[None], order, flips)
        return restore(hide_marks(turned), order, flips)


def unmarked(case: Case) -> Case:
    """The case with images whose marks are hidden whenever they are read."""
    images = tuple(
        replace(image, pixels=Unmarked(image)) if image.kind is Kind.INTENSITY else image for image in case.images
    )
    return replace(case, images=images)
