"""What an image tells besides its content: its size, its range of values, its rim, marks, its header.

None of these should say anything about a disease. Each function gives named numbers of one image; a case has
the mean over its images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from vesalius.core.case import Case
from vesalius.core.grid import Array, FloatArray
from vesalius.core.image import Image, Kind

Numbers = dict[str, float]
Attributes = Mapping[str, Mapping[str, str | float]]

SIZE, RANGE, RIM, MARKS, HEADER = "image size", "range of values", "border pixels", "burned-in marks", "header"
ALL = "all of these together"
GROUPS = (SIZE, RANGE, RIM, MARKS, HEADER)

_RIM_SHARE = 0.03  # of each side, for border pixels
_MARKS_SHARE = 0.08  # of each side, where marks are looked for
_STEEP = 0.4  # of the range of values: how far a pixel of a mark stands out of its neighbours
_MOST_WORDS = 12  # values of one header attribute that get a column of their own
_MOST_IMAGES = 4  # of a case, whose pixels are read
_EDGE = 512  # pixels along a side that are looked at; larger images are thinned out


def case_features(case: Case, attributes: Attributes) -> dict[str, Numbers]:
    """Named numbers of a case by group, the mean over its images; reads up to four of them."""
    images = [image for image in case.images if image.kind is Kind.INTENSITY]
    found: dict[str, list[Numbers]] = {group: [] for group in GROUPS}
    for image in images:
        found[SIZE].append(_size(image))
        found[HEADER].append(_header(image, attributes.get(image.id, {})))
    for image in images[:_MOST_IMAGES]:
        for group, numbers in _pixels(image).items():
            found[group].append(numbers)
    merged = {group: _mean(numbers) for group, numbers in found.items()}
    merged[SIZE]["images"] = float(len(images))
    return merged


def as_table(cases: Sequence[Mapping[str, Numbers]], group: str) -> FloatArray:
    """(cases, columns) of one group, or of all; columns that never vary are left out, gaps become -1."""
    groups = GROUPS if group == ALL else (group,)
    rows = [{(one, name): value for one in groups for name, value in case[one].items()} for case in cases]
    counts = Counter(key for row in rows for key in row)
    columns = sorted(counts)
    table = np.array([[row.get(key, np.nan) for key in columns] for row in rows], dtype=np.float64)
    table = np.nan_to_num(table.reshape(len(rows), len(columns)), nan=-1.0, posinf=1e9, neginf=-1e9)
    return table[:, np.ptp(table, axis=0) > 0] if table.size else table


def common_words(attributes: Attributes) -> dict[str, set[str]]:
    """The most frequent words of each header attribute that has words."""
    counts: dict[str, Counter[str]] = {}
    for one in attributes.values():
        for name, value in one.items():
            if isinstance(value, str):
                counts.setdefault(name, Counter())[value] += 1
    return {name: {word for word, _ in found.most_common(_MOST_WORDS)} for name, found in counts.items()}


def _size(image: Image) -> Numbers:
    i, j, k = image.grid.shape
    found: Numbers = {"width": i, "height": j, "depth": k, "aspect": i / j, "pixels": float(np.log(i * j * k))}
    found |= {f"spacing {axis}": step for axis, step in zip("ijk", image.grid.spacing, strict=True)}
    return {name: round(float(value), 4) for name, value in found.items()}


def _header(image: Image, attributes: Mapping[str, str | float]) -> Numbers:
    found = {f"modality {image.modality}": 1.0, f"role {image.role}": 1.0}
    for name, value in attributes.items():
        found[f"{name} {value}" if isinstance(value, str) else name] = 1.0 if isinstance(value, str) else float(value)
    return found


def _pixels(image: Image) -> dict[str, Numbers]:
    """Range, rim and marks of an image's middle plane."""
    array = np.asarray(image.read())
    plane = np.nan_to_num(array[..., array.shape[-1] // 2].astype(np.float32))
    return {RANGE: _range(array, plane), RIM: _rim(plane), MARKS: _marks(plane)}


def _range(array: Array, plane: Array) -> Numbers:
    top = float(np.nanmax(array)) if array.size else 0.0
    return {
        "bits": float(np.ceil(np.log2(max(top, 1.0) + 1.0))),
        "whole numbers": float(np.array_equal(plane, np.rint(plane))),
        "below zero": float(np.nanmin(array) < 0),
        "channels": float(len(array)),
        "coloured": float(len(array) > 1 and bool(np.any(np.ptp(plane, axis=0) > 0))),
    }


def _rim(plane: Array) -> Numbers:
    """Mean, spread and share of black of each side's outermost strip, and the corners; on the image's own scale."""
    grey = _scaled(plane)
    found: Numbers = {}
    for name, strip in _strips(grey, _RIM_SHARE).items():
        found |= {f"{name} mean": float(strip.mean()), f"{name} spread": float(strip.std())}
        found[f"{name} black"] = float(np.mean(strip <= 0.0))
    for name, corner in (("first", grey[:8, :8]), ("second", grey[-8:, :8]), ("third", grey[:8, -8:])):
        found[f"{name} corner"] = float(corner.mean())
    return found | {"fourth corner": float(grey[-8:, -8:].mean())}


def _marks(plane: Array) -> Numbers:
    """Share of pixels that stand out of their neighbours near each side, and of coloured ones anywhere."""
    from scipy.ndimage import median_filter

    grey = _scaled(plane)
    steep = np.abs(grey - median_filter(grey, size=3)) > _STEEP
    found = {name: float(strip.mean()) for name, strip in _strips(steep, _MARKS_SHARE).items()}
    if len(plane) > 1:
        low, high = float(plane.min()), float(plane.max())
        found["colour"] = float(np.mean(np.ptp(plane, axis=0) > 0.15 * max(high - low, 1e-9)))
    return found


def _scaled(plane: Array) -> Array:
    """(i, j) mean over channels, 0 at the lowest value and 1 at the 99th percentile, thinned out where large."""
    grey = plane.mean(axis=0)
    grey = grey[:: max(1, grey.shape[0] // _EDGE), :: max(1, grey.shape[1] // _EDGE)]
    low, high = float(grey.min()), float(np.percentile(grey, 99))
    scaled: Array = np.clip((grey - low) / max(high - low, 1e-9), 0.0, 1.5)
    return scaled


def _strips(plane: Array, share: float) -> dict[str, Array]:
    across, down = (max(1, round(share * size)) for size in plane.shape)
    return {
        "left": plane[:across],
        "right": plane[-across:],
        "top": plane[:, :down],
        "bottom": plane[:, -down:],
    }


def _mean(images: Sequence[Numbers]) -> Numbers:
    """The mean of each name over the images that have it; of words, the share of images with them."""
    names = {name for numbers in images for name in numbers}
    return {name: float(np.mean([numbers.get(name, 0.0) for numbers in images])) for name in names}
