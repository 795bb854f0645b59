"""Pictures of a case: slices with the outlines of truth and prediction, in the orientation of radiology."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image as Raster
from PIL import ImageDraw, ImageFont

from vesalius.core.grid import Array, Grid, reorient

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

TRUTH: Colour = (255, 209, 102)
ARMS: tuple[Colour, ...] = ((76, 201, 240), (255, 112, 166), (140, 230, 140))
_PAPER: Colour = (12, 14, 17)
_INK: Colour = (225, 228, 232)
_WIDTH, _TALLEST = 1080, 440  # pixels of a whole row, and of its tallest panel at most
_GAP = 6
_STRIP = 30  # pixels above each row of panels
_FINE = 3  # lines are drawn this much larger, then shrunk, so that they come out smooth
_MARGIN_MM = 10.0


@dataclass(frozen=True)
class Plane:
    """One way to cut a canonical (L, P, S) volume.

    Args:
        name: what radiologists call it.
        across, down: volume axes along the picture's rows and columns.
        turned: True where the picture's downward direction runs against `down`.
        letters: patient directions at the left, right, top and bottom edge.
    """

    name: str
    across: int
    down: int
    turned: bool
    letters: tuple[str, str, str, str]

    @property
    def through(self) -> int:
        """The volume axis that slices are counted along."""
        return 3 - self.across - self.down

    def cut(self, volume: Array, index: int) -> Array:
        """The slice (rows, columns, ...) of a volume (i, j, k, ...)."""
        part = np.take(volume, index, axis=self.through)
        picture: Array = np.swapaxes(part, 0, 1)  # the remaining axes are in rising order: across before down
        return picture[::-1] if self.turned else picture


AXIAL = Plane("axial", 0, 1, False, ("R", "L", "A", "P"))
CORONAL = Plane("coronal", 0, 2, True, ("R", "L", "S", "I"))
SAGITTAL = Plane("sagittal", 1, 2, True, ("A", "P", "S", "I"))
FLAT = Plane("", 0, 1, False, ("", "", "", ""))


def case_picture(intensities: Array, truth: Array, maps: Mapping[str, Array], grid: Grid) -> Pixels:
    """One row of panels without outlines, then one row per arm, with truth and that arm outlined.

    Slices lie where the first arm and the truth differ most, or where the truth is largest. Volumes are cut
    in three planes, single planes shown whole.

    Args:
        intensities: (channels, i, j, k); three channels are shown as colour, else the first as grey.
        truth: (i, j, k) label map.
        maps: (i, j, k) label map of each arm.
        grid: of all of these.

    Returns:
        (height, width, 3) RGB.
    """
    canonical, order, flips = grid.canonical()
    truth = reorient(truth, order, flips)
    turned = {arm: reorient(found, order, flips) for arm, found in maps.items()}
    box = _box([truth, *turned.values()], canonical.spacing)
    base = shown(reorient(intensities, order, flips)[(slice(None), *box)])
    truth, turned = truth[box], {arm: found[box] for arm, found in turned.items()}
    planes = _planes(canonical)
    zoom = _zoom(np.multiply(truth.shape, canonical.spacing), planes)
    places = _slices(truth, next(iter(turned.values()), truth), planes)
    bare = [_bare(base, plane, place, canonical, zoom) for plane, place in zip(planes, places, strict=True)]
    rows = [_row("image", _INK, bare, planes)]
    for number, (arm, found) in enumerate(turned.items()):
        colour = ARMS[number % len(ARMS)]
        drawn = []
        for panel, plane, place in zip(bare, planes, places, strict=True):
            outlined = _outlined(panel, plane.cut(truth, place), TRUTH, 2.8)
            drawn.append(_outlined(outlined, plane.cut(found, place), colour, 1.6))
        rows.append(_row(arm, colour, drawn, planes, legend=True))
    return np.concatenate(rows, axis=0)


def _zoom(extent: npt.NDArray[np.float64], planes: tuple[Plane, ...]) -> float:
    """Pixels per millimetre at which a row of panels fills the width without becoming too tall."""
    wide = (_WIDTH - _GAP * (len(planes) - 1)) / sum(extent[plane.across] for plane in planes)
    return float(min(wide, _TALLEST / max(extent[plane.down] for plane in planes)))


def _planes(grid: Grid) -> tuple[Plane, ...]:
    if grid.shape[2] == 1:
        return (FLAT,)
    if grid.placed:
        return AXIAL, CORONAL, SAGITTAL
    return tuple(Plane(plane.name, plane.across, plane.down, plane.turned, ("", "", "", "")) for plane in (AXIAL,))


def _box(maps: list[Array], spacing: tuple[float, float, float]) -> tuple[slice, slice, slice]:
    """The part of the volume worth showing: around all outlines, or everything where there are none."""
    occupied = np.any([found != 0 for found in maps], axis=0)
    box = []
    for axis, step in enumerate(spacing):
        others = tuple(other for other in range(3) if other != axis)
        hits = np.flatnonzero(occupied.any(axis=others))
        size = occupied.shape[axis]
        if not len(hits):
            box.append(slice(0, size))
            continue
        margin = round(max(_MARGIN_MM, 0.25 * (hits[-1] - hits[0]) * step) / step)
        box.append(slice(max(int(hits[0]) - margin, 0), min(int(hits[-1]) + margin + 1, size)))
    return box[0], box[1], box[2]


def shown(intensities: Array) -> Pixels:
    """(i, j, k, 3) bytes: the middle 99 % of intensities spread over the range."""
    colours = intensities if intensities.shape[0] == 3 else np.repeat(intensities[:1], 3, axis=0)
    values = np.nan_to_num(np.asarray(colours, dtype=np.float32))
    low, high = np.percentile(values, (0.5, 99.5))
    spread = np.clip((values - low) / max(float(high - low), 1e-6), 0.0, 1.0) * 255.0
    return np.moveaxis(spread.astype(np.uint8), 0, -1)


def _slices(truth: Array, found: Array, planes: tuple[Plane, ...]) -> list[int]:
    """For each plane the slice with the most differing voxels, or with the most truth where none differ."""
    wrong = truth != found
    weight = wrong if wrong.any() else truth != 0
    places = []
    for plane in planes:
        others = tuple(axis for axis in range(3) if axis != plane.through)
        counts = weight.sum(axis=others)
        places.append(int(np.argmax(counts)) if counts.any() else len(counts) // 2)
    return places


def _bare(base: Pixels, plane: Plane, place: int, grid: Grid, zoom: float) -> Raster.Image:
    """One slice at true proportions."""
    picture = Raster.fromarray(np.ascontiguousarray(plane.cut(base, place)))
    step = zoom * grid.spacing[plane.across], zoom * grid.spacing[plane.down]
    size = max(round(picture.width * step[0]), 1), max(round(picture.height * step[1]), 1)
    return picture.resize(size, Raster.Resampling.BICUBIC)


def _outlined(panel: Raster.Image, label_map: Array, colour: Colour, width: float) -> Raster.Image:
    """The panel with lines along the edges of voxels where the label changes: what was outlined, not smoothed."""
    lines = Raster.new("L", (panel.width * _FINE, panel.height * _FINE))
    draw = ImageDraw.Draw(lines)
    across, down = lines.width / label_map.shape[1], lines.height / label_map.shape[0]
    half = width * _FINE / 2.0
    padded = np.pad(label_map, 1)
    for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):  # edges above each voxel
        x, y = column * across, row * down
        draw.rectangle((x - half, y - half, x + across + half, y + half), fill=255)
    for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):  # edges left of each voxel
        x, y = column * across, row * down
        draw.rectangle((x - half, y - half, x + half, y + down + half), fill=255)
    return Raster.composite(Raster.new("RGB", panel.size, colour), panel, lines.reduce(_FINE))


def _row(
    title: str, colour: Colour, panels: list[Raster.Image], planes: tuple[Plane, ...], *, legend: bool = False
) -> Pixels:
    """Panels side by side below a strip with the arm's name and, where outlines are drawn, a legend."""
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) - 1)
    tallest = max(panel.height for panel in panels)
    row = Raster.new("RGB", (width, _STRIP + tallest + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(row), ImageFont.load_default(size=16)
    offset = 0
    for panel, plane in zip(panels, planes, strict=True):
        corner = offset, _STRIP + (tallest - panel.height) // 2
        row.paste(panel, corner)
        _draw_letters(draw, corner, panel.size, plane.letters)
        offset += panel.width + _GAP
    draw.text((6, 6), title, fill=colour, font=font)
    if legend:
        draw.text((width - 6, 6), "truth", fill=TRUTH, font=font, anchor="ra")
    return np.asarray(row)


def _draw_letters(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], size: tuple[int, int], letters: tuple[str, str, str, str]
) -> None:
    """The patient's directions at the edges of a panel."""
    left, right, top, bottom = letters
    font = ImageFont.load_default(size=15)
    (x, y), (width, height) = corner, size
    places = (
        (left, (x + 5, y + height / 2), "lm"),
        (right, (x + width - 5, y + height / 2), "rm"),
        (top, (x + width / 2, y + 4), "ma"),
        (bottom, (x + width / 2, y + height - 5), "mb"),
    )
    for letter, place, anchor in places:
        if letter:
            draw.text(place, letter, fill=_INK, font=font, anchor=anchor, stroke_width=2, stroke_fill=_PAPER)
