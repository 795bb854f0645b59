"""Outlining both hippocampi of a whole head with a network that knows crops, and doubting the outcome.

Find the boxes, run the network on each, centre the box on what was outlined and run again, keep the largest
piece, check that both outlines are plausible, and take the probabilities back to the scan's own grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid
from vesalius.imaging.resample import Float32, resample
from vesalius.inference.finder import SIDES, Region, find_regions

Probabilities = Callable[[Float32], Float32]

_PLANE_VOXELS = 1 << 21  # scan voxels interpolated at once
_REMEDY = "Look at the scan: it may not be T1, may be damaged, or its anatomy may be beyond this model."
_LATERALITY = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}


@dataclass(frozen=True)
class Outline:
    """One side as the network outlined it.

    Args:
        region: the box.
        probabilities: (classes, i, j, k) float32 on the box, background first.
    """

    region: Region
    probabilities: Float32

    @property
    def inside(self) -> Array:
        """(i, j, k) bool: where any class beats background."""
        return np.asarray(self.probabilities.argmax(axis=0) > 0)

    @property
    def volume_ml(self) -> float:
        """Volume of all classes together."""
        return float(self.inside.sum()) * self.region.grid.voxel_ml


def outline_whole_head(
    array: Array, grid: Grid, card: Mapping[str, Any], assets: Path, probabilities: Probabilities
) -> tuple[Array, dict[str, Any]]:
    """Labels of both sides on the scan's own grid.

    Args:
        array: (i, j, k) intensities on `grid`, as read.
        grid: the scan's grid.
        card: the bundle's card, with a `finder`.
        assets: folder of the bundle.
        probabilities: the network with its preparation: (i, j, k) float32 intensities at 1 mm, axes L, P, S,
            to (classes, i, j, k) float32, background first.

    Returns:
        (i, j, k) uint8: class values on the left, class values plus the number of classes on the right; and
        details: `classes` (the card's classes for either side), `volumes_ml` by class name, `finder`
        (quality of the finding).

    Raises:
        UnusableInput: no head, or no plausible pair of outlines.
        BundleError: the finder's asset or the network cannot be used.
    """
    finder = card["finder"]
    found = find_regions(array, grid, finder, assets)
    outlines = [_outline(array, grid, region, finder, probabilities) for region in found.regions]
    check_outlines(outlines, found.regions, finder)
    labels = np.zeros(grid.shape, np.uint8)
    values = np.array([0, *(int(entry["value"]) for entry in card["classes"])], np.uint8)
    for outline in outlines:
        paste(outline, values, labels, grid)
    classes = sided_classes(card["classes"])
    counts = np.bincount(labels.ravel(), minlength=max(entry["value"] for entry in classes) + 1)
    volumes = {entry["name"]: float(counts[entry["value"]]) * grid.voxel_ml for entry in classes}
    return labels, {"classes": classes, "volumes_ml": volumes, "finder": dict(found.quality)}


def sided_classes(classes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The card's classes for the left side, then for the right, whose values follow after the left's.

    Codes stay the structure's; `laterality` (SNOMED CT) is added beside them.
    """
    sided = []
    for number, side in enumerate(SIDES):
        value, meaning = _LATERALITY[side]
        for entry in classes:
            changes = {
                "value": int(entry["value"]) + number * len(classes),
                "name": f"{side} {entry['name']}",
                "laterality": {"value": value, "scheme": "SCT", "meaning": meaning},
            }
            sided.append(dict(entry) | changes)
    return sided


def _outline(
    array: Array, grid: Grid, region: Region, finder: Mapping[str, Any], probabilities: Probabilities
) -> Outline:
    """Two passes: where the box may be a little off, then centred on what the first one outlined."""
    first = Outline(region, probabilities(_cut(array, grid, region)))
    if not first.inside.any():
        raise UnusableInput(f"The network outlined no {region.side} hippocampus.", remedy=_REMEDY)
    inside = np.argwhere(_largest_piece(first.inside))
    middle = (inside.min(axis=0) + inside.max(axis=0)) / 2
    close = region.around(region.grid.to_patient(middle), finder["close_mm"])
    answer = probabilities(_cut(array, grid, close))
    second = Outline(close, answer)
    stray = second.inside & ~_largest_piece(second.inside)
    answer[:, stray] = 0.0
    answer[0, stray] = 1.0
    return second


def _cut(array: Array, grid: Grid, region: Region) -> Float32:
    """The scan's intensities in a box, interpolated linearly (1 mm scans lose least of their noise so)."""
    corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    index = grid.to_index(region.grid.to_patient(corners * (np.asarray(region.grid.shape) - 1)))
    start = np.maximum(np.floor(index.min(axis=0)).astype(int) - 4, 0)
    stop = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 5, grid.shape)
    part = np.asarray(array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))], dtype=np.float32)
    return resample(part, grid.cropped(start.tolist(), stop.tolist()), region.grid)


def _largest_piece(inside: Array) -> Array:
    import scipy.ndimage

    pieces, count = scipy.ndimage.label(inside)
    if count <= 1:
        return inside
    return np.asarray(pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:]))


def paste(outline: Outline, values: Array, labels: Array, grid: Grid) -> None:
    """Write one side into a label map: probabilities interpolated at each voxel's centre, strongest class.

    Args:
        outline: what the network said of the box.
        values: (classes,) label value of each class, background (0) first.
        labels: (i, j, k) uint8 on `grid`, changed in place where a class other than background wins.
        grid: the scan's grid.
    """
    import scipy.ndimage

    region = outline.region
    inside = np.argwhere(outline.probabilities[0] < 0.999)
    box = np.array([inside.min(axis=0) - 1, inside.max(axis=0) + 1])
    corners = np.array([[box[a, 0], box[b, 1], box[c, 2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    index = grid.to_index(region.grid.to_patient(corners))
    start = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
    stop = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, grid.shape)
    step = max(1, _PLANE_VOXELS // int(np.prod(np.maximum(stop - start, 1)[1:])))
    for first in range(start[0], stop[0], step):
        low, high = np.array([first, *start[1:]]), np.array([min(first + step, stop[0]), *stop[1:]])
        part = grid.cropped(low.tolist(), high.tolist())
        change = np.linalg.inv(region.grid.affine) @ part.affine
        shares = np.stack(
            [
                scipy.ndimage.affine_transform(
                    share, change[:3, :3], change[:3, 3], part.shape, order=1, cval=float(number == 0)
                )
                for number, share in enumerate(outline.probabilities)
            ]
        )
        winner = shares.argmax(axis=0)
        target = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        target[winner > 0] = values[winner[winner > 0]] + region.offset


def check_outlines(outlines: Sequence[Outline], expected: Sequence[Region], finder: Mapping[str, Any]) -> None:
    """Doubt both outlines: size, place, whether the box cut them off, and how alike the sides are.

    Args:
        outlines: left, then right.
        expected: the boxes as first found.
        finder: the card's `finder` with `volumes_ml` (least and most of one side), `ratio` (most between
            the sides) and `shift_mm` (most between outline and expected place).

    Raises:
        UnusableInput: with the first doubt.
    """
    low, high = finder["volumes_ml"]
    volumes = [outline.volume_ml for outline in outlines]
    for outline, place, volume in zip(outlines, expected, volumes, strict=True):
        side = place.side
        if not low <= volume <= high:
            raise UnusableInput(
                f"The outline of the {side} hippocampus has {volume:.1f} ml, which is not plausible.", remedy=_REMEDY
            )
        inside = outline.inside
        centre = outline.region.grid.to_patient(np.argwhere(inside).mean(axis=0))
        if np.linalg.norm(centre - place.centre) > finder["shift_mm"]:
            raise UnusableInput(
                f"The outline of the {side} hippocampus lies too far from where it was expected.", remedy=_REMEDY
            )
        core = inside[1:-1, 1:-1, 1:-1].sum()
        if inside.sum() - core > 0.05 * inside.sum():
            raise UnusableInput(f"The outline of the {side} hippocampus does not end in its box.", remedy=_REMEDY)
    if max(volumes) > finder["ratio"] * min(volumes):
        raise UnusableInput("The outlines of the two sides differ too much in size.", remedy=_REMEDY)
