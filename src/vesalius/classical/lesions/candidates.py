"""Places where a lesion could be, and the numbers that describe each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.classical.lesions.field import Field, Float32
from vesalius.classical.lesions.maps import filter_maps
from vesalius.core.grid import Array, FloatArray

_SOURCES = ("laplacian", "convergence", "contrast", "tophat", "spicules", "points")
_PER_SOURCE = 6  # strongest peaks taken of each map


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates of one image.

    Args:
        places: (n, d) positions in the field.
        radii: (n,) in pixels of the field.
        features: (n, features), in the order of `names`.
        names: of the features.
    """

    places: FloatArray
    radii: FloatArray
    features: FloatArray
    names: tuple[str, ...]


def find_candidates(field: Field, radii: Sequence[float], dark: bool) -> Candidates:
    """The strongest peaks of every filter at every radius, described.

    Args:
        field: prepared image.
        radii: in pixels of the field.
        dark: look for what is darker than its surroundings.
    """
    maps = filter_maps(field, radii, dark)
    scaled = {name: _in_deviations(found, field) for name, found in maps.items()}
    places, scales = _peaks(scaled, field, radii)
    features = {**_answers(scaled, maps, places, scales), **_position(field, places), **_image(field, maps)}
    features["radius"] = np.log(np.asarray(radii)[scales])
    features |= _grey(field, places, np.asarray(radii)[scales], dark)
    table = np.stack([np.broadcast_to(values, len(places)) for values in features.values()], axis=1)
    return Candidates(places.astype(np.float64), np.asarray(radii)[scales], table.astype(np.float64), tuple(features))


def _in_deviations(found: Float32, field: Field) -> Float32:
    """Each radius' map less its mean, in its deviations inside."""
    counted = found[:, field.inside] if field.inside.any() else found.reshape(len(found), -1)
    shape = (-1,) + (1,) * field.values.ndim
    mean, spread = counted.mean(axis=1).reshape(shape), counted.std(axis=1).reshape(shape)
    return np.asarray((found - mean) / np.where(spread > 1e-6, spread, 1.0), np.float32)


def _peaks(scaled: Mapping[str, Float32], field: Field, radii: Sequence[float]) -> tuple[Array, Array]:
    """Positions (n, d) and number of the radius (n,), without two of one radius that nearly coincide."""
    from scipy import ndimage

    places: list[Array] = []
    scales: list[int] = []
    for number, radius in enumerate(radii):
        taken: list[tuple[float, Array]] = []
        for name in _SOURCES:
            if name not in scaled:
                continue
            answer = np.where(field.inside, scaled[name][number], -np.inf)
            size = 2 * max(1, round(0.6 * radius)) + 1
            peak = (answer == ndimage.maximum_filter(answer, size, mode="nearest")) & (answer > 0.5)
            found = np.argwhere(peak)
            strength = answer[peak]
            best = np.argsort(-strength, kind="stable")[:_PER_SOURCE]
            taken += [(float(strength[n]), found[n]) for n in best]
        kept: list[Array] = []
        for _, place in sorted(taken, key=lambda item: -item[0]):
            if all(((place - other) ** 2).sum() > (0.4 * radius) ** 2 for other in kept):
                kept.append(place)
        places += kept
        scales += [number] * len(kept)
    if not places:
        middle = np.array([[size // 2 for size in field.values.shape]])
        return middle, np.zeros(1, np.int64)
    return np.stack(places), np.array(scales, np.int64)


def _answers(
    scaled: Mapping[str, Float32], maps: Mapping[str, Float32], places: Array, scales: Array
) -> dict[str, FloatArray]:
    """Every filter's answer at the candidate: at its radius, at the next ones, and its best over all radii."""
    index = tuple(places.T)
    features = {}
    for name, found in scaled.items():
        column = np.asarray(found[(slice(None), *index)], np.float64)  # (radii, n)
        rows = np.arange(len(places))
        features[name] = column[scales, rows]
        features[f"{name}_smaller"] = column[np.maximum(scales - 1, 0), rows]
        features[f"{name}_larger"] = column[np.minimum(scales + 1, len(column) - 1), rows]
        features[f"{name}_best"] = column.max(axis=0)
        features[f"{name}_plain"] = np.asarray(maps[name][(slice(None), *index)], np.float64)[scales, rows]
    return features


def _position(field: Field, places: Array) -> dict[str, FloatArray]:
    """Where in the body the candidate lies: along each axis, from the border, and whether in the muscle."""
    from scipy import ndimage

    inside = field.inside
    found = np.argwhere(inside)
    low, high = (found.min(axis=0), found.max(axis=0)) if len(found) else (np.zeros(inside.ndim), inside.shape)
    extent = np.maximum(np.asarray(high) - low, 1)
    features = {f"place_{axis}": (places[:, axis] - low[axis]) / extent[axis] for axis in range(inside.ndim)}
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[(slice(1, -1),) * inside.ndim]
    features["depth"] = depth[tuple(places.T)] / float(extent.max())
    features["muscle"] = field.muscle[tuple(places.T)].astype(np.float64)
    if field.muscle.any():
        beyond = ndimage.distance_transform_edt(~field.muscle)
        features["from_muscle"] = beyond[tuple(places.T)] / float(extent.max())
    else:
        features["from_muscle"] = np.ones(len(places))
    return features


def _image(field: Field, maps: Mapping[str, Float32]) -> dict[str, FloatArray]:
    """What the whole image is like, the same for all its candidates."""
    values = field.values[field.inside] if field.inside.any() else field.values.ravel()
    low, middle, high = np.percentile(values, (5, 50, 95))
    texture = maps["texture"][0]
    return {
        "image_range": np.asarray(high - low),
        "image_skew": np.asarray((high + low - 2 * middle) / (high - low + 1e-6)),
        "image_texture": np.asarray(float(texture[field.inside].mean()) if field.inside.any() else 0.0),
        "image_share": np.asarray(float(field.inside.mean())),
    }


def _grey(field: Field, places: Array, radii: FloatArray, dark: bool) -> dict[str, FloatArray]:
    """Brightness of the candidate's disc or ball: its rank in the body, and how its parts differ."""
    values = -field.values if dark else field.values
    ordered = np.sort(values[field.inside] if field.inside.any() else values.ravel())
    features: dict[str, list[float]] = {
        name: [] for name in ("rank", "rank_low", "rank_high", "core_deviation", "ring_deviation", "ring_least", "skew")
    }
    for place, radius in zip(places, radii, strict=True):
        reach = int(np.ceil(1.6 * radius))
        window = tuple(slice(max(0, p - reach), p + reach + 1) for p in place)
        patch = values[window]
        offsets = np.indices(patch.shape).reshape(values.ndim, *patch.shape)
        start = np.array([s.start for s in window]) - place
        distance = np.sqrt(((offsets + start.reshape(-1, *(1,) * values.ndim)) ** 2).sum(axis=0))
        core, ring = patch[distance <= max(radius, 1.0)], patch[(distance > radius) & (distance <= 1.6 * radius + 1)]
        low, middle, high = np.percentile(core, (10, 50, 90))
        spread = float(core.std())
        for name, value in (("rank", middle), ("rank_low", low), ("rank_high", high)):
            features[name].append(float(np.searchsorted(ordered, value)) / len(ordered))
        features["core_deviation"].append(spread)
        features["ring_deviation"].append(float(ring.std()) if ring.size else 0.0)
        features["ring_least"].append(float(middle - np.percentile(ring, 75)) if ring.size else 0.0)
        features["skew"].append(float((high + low - 2 * middle) / (high - low + 1e-6)))
    return {name: np.array(found) for name, found in features.items()}
