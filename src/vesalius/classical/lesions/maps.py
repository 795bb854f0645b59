"""Filters that answer to lesions, each at several radii: one map per filter and radius."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.classical.lesions.field import Field, Flags, Float32
from vesalius.classical.radiomics.region import shrunk
from vesalius.core.grid import Array, FloatArray

_OWN_RADIUS = 6.0  # pixels up to which a radius is looked for at full resolution
_POINT = 1.0  # width of the point detector in pixels of the fine image
_POINT_LEAST = 3.0  # local deviations from which something is a point
_POINT_MOST = 6.0  # beyond which a point is no stronger evidence: dust and scratches are the strongest
_POINT_GROUND = 25  # pixels of the fine image that a point's surroundings are wide
_CLUSTER = 3  # points from which they are a cluster (Chan et al., Medical Physics 15:549, 1988, and since)


def filter_maps(field: Field, radii: Sequence[float], dark: bool) -> dict[str, Float32]:
    """(radii, *shape) answers of every filter, high where a lesion could be centred.

    Args:
        field: prepared image.
        radii: of the lesions looked for, in pixels of the field.
        dark: look for what is darker than its surroundings.

    Returns:
        By name: "laplacian" (scale-normalised Laplacian of Gaussian; Lindeberg, IJCV 30:79, 1998), "hessian"
        (the weaker of the curvatures, so that lines do not answer), "tophat" (white top-hat by a square of the
        lesion's size), "contrast" (inside against a ring around, in local deviations), "convergence" (gradients
        pointing to the centre; the iris filter of Kobatake et al., IEEE TMI 18:1091, 1999, over a fixed
        ring), "texture" (local deviation), "points" and "cluster" (see `points_of`), in planes also
        "spicules" (bright lines pointing to the centre, after Karssemeijer and te Brake, IEEE TMI 15:611, 1996).
    """
    values = -field.values if dark else field.values
    levels = _pyramid(_Level(values, field.inside, *points_of(field, dark)), max(radii))
    found: dict[str, list[Float32]] = {}
    for radius in radii:
        level = min(int(np.log2(max(1.0, radius / _OWN_RADIUS))), len(levels) - 1)
        at, small = radius / 2**level, levels[level]
        answers = _answers(small.values, small.inside, at) | _gathered(small.excess, small.count, at)
        for name, answer in answers.items():
            found.setdefault(name, []).append(_enlarged(answer, values.shape))
    return {name: np.stack(answers) for name, answers in found.items()}


@dataclass(frozen=True, eq=False)
class _Level:
    """An image at one resolution: intensities, what is inside, and the points in each pixel."""

    values: Float32
    inside: Flags
    excess: Float32
    count: Float32

    def halved(self) -> _Level:
        """The same at half the resolution; points keep their number."""
        sizes = [-(-size // 2) for size in self.values.shape]
        more = float(np.prod(self.values.shape) / np.prod(sizes))
        return _Level(
            shrunk(self.values, sizes), shrunk(self.inside.astype(np.float32), sizes) >= 0.5,
            shrunk(self.excess, sizes) * np.float32(more), shrunk(self.count, sizes) * np.float32(more),
        )  # fmt: skip


def _pyramid(first: _Level, largest: float) -> list[_Level]:
    """The image at full, half, quarter resolution and so on: large lesions are looked for on small images."""
    levels = [first]
    while largest >= 2 * _OWN_RADIUS and min(levels[-1].values.shape) >= 16:
        levels.append(levels[-1].halved())
        largest /= 2
    return levels


def _enlarged(small: Array, shape: Sequence[int]) -> Float32:
    """Linear interpolation to a finer raster over the same extent."""
    if small.shape == tuple(shape):
        return np.asarray(small, np.float32)
    for axis, size in enumerate(shape):
        few = small.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * few / size - 0.5, 0, few - 1)
        low = np.minimum(place.astype(int), max(few - 2, 0))
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(small.ndim)])
        small = small.take(low, axis) * (1 - share) + small.take(np.minimum(low + 1, few - 1), axis) * share
    return np.asarray(small, np.float32)


def _answers(values: Float32, inside: Flags, radius: float) -> dict[str, Array]:
    """Every filter's answer at one radius."""
    contrast, texture = _contrast(values, radius)
    found = {
        "laplacian": _laplacian(values, radius),
        "hessian": _hessian(values, radius),
        "tophat": _tophat(values, radius),
        "convergence": _convergence(values, inside, radius),
        "contrast": contrast,
        "texture": texture,
    }
    if values.ndim == 2:
        found["spicules"] = _spicules(values, inside, radius)
    return found


def _laplacian(values: Float32, radius: float) -> Array:
    from scipy import ndimage

    width = radius / values.ndim**0.5
    return np.asarray(-(width**2) * ndimage.gaussian_laplace(values, width, mode="nearest", truncate=3.0))


def _hessian(values: Float32, radius: float) -> Array:
    """The least curvature downwards, 0 where it curves upwards along any axis."""
    from scipy import ndimage

    d = values.ndim
    width = radius / d**0.5
    smooth = ndimage.gaussian_filter(values, width, mode="nearest", truncate=3.0)
    slopes = _slopes(smooth)
    matrix = np.empty((*values.shape, d, d), np.float32)
    for one in range(d):
        matrix[..., one, :] = np.moveaxis(_slopes(slopes[one]), 0, -1)
    matrix = (matrix + np.swapaxes(matrix, -1, -2)) / 2
    return np.asarray(np.maximum(-(width**2) * _largest_eigenvalue(matrix), 0.0))


def _slopes(values: Array) -> Array:
    """(d, *shape) central differences; 0 along an axis of one pixel."""
    still = np.zeros(values.shape, np.float32)
    return np.stack([np.gradient(values, axis=a) if size > 1 else still for a, size in enumerate(values.shape)])


def _largest_eigenvalue(matrix: Array) -> Array:
    if matrix.shape[-1] == 2:
        half = (matrix[..., 0, 0] + matrix[..., 1, 1]) / 2
        away = np.hypot((matrix[..., 0, 0] - matrix[..., 1, 1]) / 2, matrix[..., 0, 1])
        return np.asarray(half + away)
    return np.asarray(np.linalg.eigvalsh(matrix)[..., -1])


def _tophat(values: Float32, radius: float) -> Array:
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(values, max(0.5, radius / 4), mode="nearest", truncate=3.0)
    size = 2 * round(1.5 * radius) + 1
    return np.asarray(smooth - ndimage.grey_opening(smooth, size=(size,) * values.ndim, mode="nearest"))


def _contrast(values: Float32, radius: float) -> tuple[Array, Array]:
    from scipy import ndimage

    core = ndimage.gaussian_filter(values, 0.6 * radius, mode="nearest", truncate=3.0)
    around = ndimage.gaussian_filter(values, 1.5 * radius, mode="nearest", truncate=3.0)
    square = ndimage.gaussian_filter(values**2, 1.5 * radius, mode="nearest", truncate=3.0)
    texture = np.sqrt(np.maximum(square - around**2, 0.0))
    return (core - around) / (texture + 0.05 * (float(values.std()) or 1.0)), texture


def _convergence(values: Float32, inside: Flags, radius: float) -> Array:
    """Mean cosine between the gradient and the direction to the centre, over a ring; faint gradients count less."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(values, max(1.0, radius / 6), mode="nearest", truncate=3.0)
    slopes = _slopes(smooth)
    strength = np.sqrt((slopes**2).sum(axis=0))
    faint = 0.5 * float(np.median(strength[inside])) + 1e-6 if inside.any() else 1e-6
    unit = slopes / (strength + faint) * inside
    away, distance = _offsets(values.ndim, 1.3 * radius)
    ring = ((distance <= 1.3 * radius) & (distance >= 0.4 * radius)).astype(np.float64)
    total = np.zeros(values.shape, np.float32)
    for axis in range(values.ndim):
        # At offset r from the centre of something bright the gradient points along -r.
        total += _correlated(unit[axis], -ring * away[axis] / np.maximum(distance, 1e-6))
    weight = _correlated(inside, ring)
    return np.asarray(total / np.maximum(weight, 0.5 * ring.sum()))


def _spicules(values: Float32, inside: Flags, radius: float) -> Array:
    """How much more lines around run to the centre than across: the cosine of twice the angle, by strength."""
    from scipy import ndimage

    width = 1.5
    second = [ndimage.gaussian_filter(values, width, order=order, mode="nearest") for order in ((2, 0), (1, 1), (0, 2))]
    half = (second[0] - second[2]) / 2
    bend = np.hypot(half, second[1])
    strength = np.maximum(-(second[0] + second[2]) / 2 + bend, 0.0)  # curvature downwards across the line
    strength = (np.minimum(strength, np.percentile(strength[inside], 99)) if inside.any() else strength) * inside
    along = np.arctan2(second[1], half)  # twice the angle at which the image bends down least: along a bright line
    reach = 2.0 * radius + 4
    away, distance = _offsets(2, reach)
    ring = ((distance <= reach) & (distance >= 0.6 * radius)).astype(np.float64)
    turn = np.exp(2j * np.arctan2(away[1], away[0])) * ring
    radial = _correlated(strength * np.cos(along), turn.real) + _correlated(strength * np.sin(along), turn.imag)
    return np.asarray(radial / np.maximum(_correlated(strength, ring), 1e-6 + 0.2 * ring.sum() * strength.mean()))


def points_of(field: Field, dark: bool) -> tuple[Float32, Float32]:
    """Small bright points, as calcifications are: their strength and their number in each pixel of the field.

    A point is a local maximum of a difference of Gaussians (Dengler et al., IEEE TMI 12:634, 1993) in the fine
    image, in deviations of its surroundings.
    """
    from scipy import ndimage

    fine = -field.fine if dark else field.fine
    sharp = ndimage.gaussian_filter(fine, _POINT, truncate=3.0)
    sharp = sharp - ndimage.gaussian_filter(fine, 2.0 * _POINT, truncate=3.0)
    local = np.sqrt(np.maximum(ndimage.uniform_filter(sharp**2, _POINT_GROUND), 0.0)) + 1e-4
    strength = sharp / local
    peak = (strength == ndimage.maximum_filter(strength, 3)) & (strength > _POINT_LEAST)
    ratio = np.array(field.values.shape) / np.array(fine.shape)
    places = np.minimum(((np.argwhere(peak) + 0.5) * ratio).astype(int), np.array(field.values.shape) - 1)
    excess, count = np.zeros(field.values.shape, np.float32), np.zeros(field.values.shape, np.float32)
    np.add.at(excess, tuple(places.T), np.minimum(strength[peak] - _POINT_LEAST, _POINT_MOST))
    np.add.at(count, tuple(places.T), 1.0)
    return excess * field.inside, count * field.inside


def _gathered(excess: Float32, count: Float32, radius: float) -> dict[str, Array]:
    """Strength of the points within the radius, and how many more there are than two."""
    from scipy import ndimage

    width = 0.6 * radius
    area = (2 * np.pi * width**2) ** (excess.ndim / 2)
    near = area * ndimage.gaussian_filter(count, width, mode="constant", truncate=3.0)
    return {
        "points": area * ndimage.gaussian_filter(excess, width, mode="constant", truncate=3.0),
        "cluster": np.maximum(near - (_CLUSTER - 1), 0.0),
    }


def _offsets(dimension: int, reach: float) -> tuple[FloatArray, FloatArray]:
    """(d, ...) offsets from the centre of a small cube, and their lengths."""
    edge = int(np.ceil(reach))
    away = (np.indices((2 * edge + 1,) * dimension) - edge).astype(np.float64)
    return away, np.sqrt((away**2).sum(axis=0))


def _correlated(values: Array, kernel: FloatArray) -> Array:
    """Sum of the kernel times the surroundings of each place; zero beyond the border."""
    from scipy import signal

    turned = kernel[tuple(slice(None, None, -1) for _ in range(kernel.ndim))]
    return np.asarray(signal.fftconvolve(np.asarray(values, np.float32), turned.astype(np.float32), mode="same"))
