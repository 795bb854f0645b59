"""What a detector sees of an image: a few channels at the resolution that suits its lesions.

Training and the bedside call `view`; every constant stands in the card. A view has the intensities, the same
with the local mean and spread taken out, the finest bright points of the source (which averaging would lose:
calcifications), where such points lie together, and where the body is. The last three are no intensities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.core.errors import BundleError, UnusableInput
from vesalius.core.grid import Array, Grid, reorient
from vesalius.core.image import Image
from vesalius.imaging.mammogram import Breast, cleaned, find_breast
from vesalius.imaging.prepare import Normalisation, normalise
from vesalius.imaging.resample import Float32

_LOCAL = 8.0  # sigma of the local mean and spread, voxels of the view
_LEAST_SPREAD = 0.05  # a local spread below this (normalised units) is not stretched further
_FINE = (0.6, 1.5)  # sigmas of the difference of Gaussians that finds points, voxels of the source
_CLEAR, _CLUSTER = 1.2, 1.5  # a point above this (of `_stands_out`) is clear; sigma of a cluster, voxels of the view
_STRIP = 1 << 24  # voxels of the source that fine detail is computed on at once
_REMAINDER = 0.15  # a spacing this near (as a share) to a whole number of voxels is not interpolated

Factors = tuple[float, float, float]


@dataclass(frozen=True)
class ViewRecipe:
    """How an image becomes a view.

    Args:
        spacing: of the view along the canonical axes, in the grid's unit (mm, or pixels where unplaced).
        channels: of the image, 1 or 3.
        mammogram: True where the breast is found first, all else is left out, and the chest wall is
            turned to the low end of i.
    """

    spacing: Factors
    channels: int = 1
    mammogram: bool = False

    @property
    def depth(self) -> int:
        """Channels of a view: intensities, local contrast, points, clusters of points, body."""
        return self.channels + 4

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs."""
        return {"spacing": list(self.spacing), "channels": self.channels, "mammogram": self.mammogram}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ViewRecipe:
        """The recipe that `as_json` described.

        Raises:
            BundleError: a key is missing or makes no sense.
        """
        try:
            i, j, k = (float(value) for value in data["spacing"])
            recipe = cls((i, j, k), int(data["channels"]), bool(data["mammogram"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("The card's view cannot be read.", remedy="Fit the model again.") from error
        if min(recipe.spacing) <= 0 or recipe.channels < 1:
            raise BundleError("The card's view makes no sense.", remedy="Fit the model again.")
        return recipe


@dataclass(frozen=True)
class View:
    """An image as a detector sees it.

    Args:
        array: (depth, i, j, k) float32 in canonical order, turned as the recipe says.
        factors: voxels of the source's canonical grid per voxel of the view.
        turned: True where i runs against the canonical grid's.
        grid: the source's own grid.
        breast: True where a breast was found; its chest wall lies at the low end of i.
    """

    array: Float32
    factors: Factors
    turned: bool
    grid: Grid
    breast: bool = False

    def to_view(self, centre: Sequence[float], size: Sequence[float]) -> tuple[Array, Array]:
        """Centre and size (3,) in the view's voxels of a box in the source's own index space."""
        canonical, order, flips = self.grid.canonical()
        place = np.array([float(centre[axis]) for axis in order])
        length = np.array([float(size[axis]) for axis in order])
        shape = np.array(canonical.shape)
        place = np.where(flips, shape - 1 - place, place)
        factors = np.array(self.factors)
        place = (place + 0.5) / factors - 0.5
        if self.turned:
            place[0] = self.array.shape[1] - 1 - place[0]
        return place, length / factors

    def to_source(self, centre: Sequence[float] | Array, size: Sequence[float] | Array) -> tuple[Factors, Factors]:
        """Undo `to_view`."""
        canonical, order, flips = self.grid.canonical()
        place, length = np.array(centre, np.float64), np.array(size, np.float64)
        if self.turned:
            place[0] = self.array.shape[1] - 1 - place[0]
        factors, shape = np.array(self.factors), np.array(canonical.shape)
        place = np.clip((place + 0.5) * factors - 0.5, 0, shape - 1)
        place = np.where(flips, shape - 1 - place, place)
        back = np.argsort(order)
        i, j, k = (float(value) for value in place[back])
        a, b, c = (float(value) for value in (length * factors)[back])
        return (i, j, k), (a, b, c)


def view(image: Image, recipe: ViewRecipe) -> View:
    """An image as a detector sees it.

    Raises:
        UnusableInput: it has another number of channels than the detector was fitted on, holds no contrast,
            or does not fill its grid.
    """
    array = image.read()
    if array.ndim != 4 or array.shape[1:] != image.grid.shape:
        raise UnusableInput("The pixels do not fill the image's grid.", remedy="Export it again.")
    array = _with_channels(array, recipe.channels)
    canonical, order, flips = image.grid.canonical()
    array = reorient(array, order, flips)
    breast = find_breast(array.mean(0)[..., 0]) if recipe.mammogram and array.shape[-1] == 1 else None
    if breast is not None:
        array = np.stack([cleaned(channel[..., 0], breast)[..., None] for channel in array])
    normal = normalise(array, Normalisation("zscore"))
    factors = [
        max(1.0, aim / own) if size > 1 else 1.0
        for aim, own, size in zip(recipe.spacing, canonical.spacing, canonical.shape, strict=True)
    ]
    steps, shape, exact = _lattice(canonical.shape, factors)
    grey = normal.mean(0)
    body = _body(grey, breast)
    small = np.stack([_resized(_blocks(channel, steps, np.mean), shape) for channel in normal])
    inside = _resized(_blocks(body, steps, np.mean), shape)
    highest, square = (_resized(part, shape) for part in _fine(grey, steps))
    fine = _stands_out(highest, square, inside, breast is not None)
    local = _local(small.mean(0), inside)
    array = np.concatenate([small, np.stack([local, fine, _clusters(fine), inside])])
    turned = breast is not None and breast.wall_right
    array = np.ascontiguousarray(array[:, ::-1] if turned else array)
    return View(array, exact, turned, image.grid, breast is not None)


def _with_channels(array: Array, channels: int) -> Array:
    """Grey to colour by repeating, colour to grey by averaging."""
    if len(array) == channels:
        return array
    if len(array) == 1:
        return np.repeat(array, channels, axis=0)
    if channels == 1:
        grey: Array = array.mean(0, keepdims=True, dtype=np.float32)
        return grey
    raise UnusableInput(f"The image has {len(array)} channels; the model takes {channels}.")


def _lattice(shape: Sequence[int], factors: Sequence[float]) -> tuple[tuple[int, ...], tuple[int, ...], Factors]:
    """Whole block sizes, the view's shape, and the exact factors, along each axis."""
    steps, sizes, exact = [], [], []
    for size, factor in zip(shape, factors, strict=True):
        step = max(1, int(factor + 0.01))
        whole = -(-size // step)
        near = abs(factor / step - 1.0) <= _REMAINDER
        few = whole if near else max(1, round(whole * step / factor))
        steps.append(step)
        sizes.append(few)
        exact.append(whole * step / few)
    return tuple(steps), tuple(sizes), (exact[0], exact[1], exact[2])


def _blocks(array: Float32, steps: Sequence[int], reduce: Any) -> Float32:
    """Blocks of (i, j, k) reduced to one voxel each; the border is repeated to fill the last ones."""
    if max(steps) == 1:
        return array
    pad = [(0, -size % step) for size, step in zip(array.shape, steps, strict=True)]
    if any(after for _, after in pad):
        array = np.pad(array, pad, mode="edge")
    (a, b, c), (i, j, k) = steps, array.shape
    whole = array.reshape(i // a, a, j // b, b, k // c, c)
    reduced: Float32 = reduce(whole, axis=(1, 3, 5)).astype(np.float32, copy=False)
    return reduced


def _resized(array: Float32, shape: Sequence[int]) -> Float32:
    """Linear interpolation to `shape`, the outer faces kept."""
    if array.shape == tuple(shape):
        return array
    from scipy import ndimage

    zoom = [to / size for to, size in zip(shape, array.shape, strict=True)]
    resized: Float32 = ndimage.zoom(array, zoom, order=1, mode="nearest", grid_mode=True)
    return resized


def _body(grey: Float32, breast: Breast | None) -> Float32:
    """1 in the body and 0 in what is exactly as dark as the darkest; on mammograms 0.5 in the muscle."""
    if breast is not None:
        body = breast.mask.astype(np.float32)
        body[breast.muscle] = 0.5
        return body[..., None]
    bright: Float32 = (grey > grey.min()).astype(np.float32)
    return bright


def _fine(grey: Float32, steps: Sequence[int]) -> tuple[Float32, Float32]:
    """The brightest point of each block, by difference of Gaussians, and its mean square.

    Computed in strips along i, so that a large film needs little memory beside itself.
    """
    from scipy import ndimage

    flat = [size == 1 for size in grey.shape]
    narrow, wide = ([0.0 if one else sigma for one in flat] for sigma in _FINE)
    halo = int(np.ceil(4 * _FINE[1])) + 1
    rows = max(1, _STRIP // max(1, grey[0].size) // steps[0]) * steps[0]
    highest, square = [], []
    for start in range(0, grey.shape[0], rows):
        low, stop = max(0, start - halo), min(grey.shape[0], start + rows)
        part = grey[low : stop + halo]
        points = ndimage.gaussian_filter(part, narrow) - ndimage.gaussian_filter(part, wide)
        points = points[start - low : stop - low]
        highest.append(_blocks(points, steps, np.max))
        square.append(_blocks(np.square(points), steps, np.mean))
    return np.concatenate(highest), np.concatenate(square)


def _stands_out(highest: Float32, square: Float32, inside: Float32, edges: bool) -> Float32:
    """The points as multiples of what is usual around them: few are above 1, calcifications are 3 to 5.

    Args:
        highest, square: as `_fine` gives them, on the view's grid.
        inside: share of each voxel that is body.
        edges: leave out the edge of the body, which is a step itself.
    """
    from scipy import ndimage

    sigma = [0.0 if size == 1 else _LOCAL for size in highest.shape]
    kept = (inside > 0).astype(np.float32)
    if edges:
        window = [1 if size == 1 else 7 for size in inside.shape]
        kept = (ndimage.minimum_filter(kept, window) > 0).astype(np.float32)
    around = ndimage.gaussian_filter(square * kept, sigma) / (ndimage.gaussian_filter(kept, sigma) + 1e-3)
    usual = np.sqrt(around) + 1e-4
    points: Float32 = np.clip(0.5 * highest / usual, 0.0, 8.0).astype(np.float32) * kept
    return points


def _clusters(points: Float32) -> Float32:
    """Where points lie together: what stands out clearly, blurred."""
    from scipy import ndimage

    sigma = [0.0 if size == 1 else _CLUSTER for size in points.shape]
    clusters: Float32 = 4.0 * ndimage.gaussian_filter(np.clip(points - _CLEAR, 0.0, 3.0), sigma)
    return clusters


def _local(small: Float32, inside: Float32) -> Float32:
    """Intensities with the mean and spread of the body around each voxel taken out."""
    from scipy import ndimage

    sigma = [0.0 if size == 1 else _LOCAL for size in small.shape]
    weight = ndimage.gaussian_filter(inside, sigma) + 1e-3
    mean = ndimage.gaussian_filter(small * inside, sigma) / weight
    square = ndimage.gaussian_filter(np.square(small) * inside, sigma) / weight
    spread = np.sqrt(np.maximum(square - mean**2, _LEAST_SPREAD**2))
    local: Float32 = np.clip((small - mean) / spread, -5.0, 5.0) * (inside > 0)
    return local.astype(np.float32)
