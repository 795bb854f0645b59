"""Plane pictures of images, with ellipses, boxes and heat drawn over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as Raster
from PIL import ImageDraw, ImageFont

from vesalius.core.finding import Box
from vesalius.core.grid import Array, FloatArray, Grid
from vesalius.core.image import Image
from vesalius.tasks.outlines import TRUTH, Colour, Pixels, shown

MODEL_COLOUR: Colour = (76, 201, 240)
RIVAL_COLOUR: Colour = (255, 112, 166)
_PAPER: Colour = (12, 14, 17)
_INK: Colour = (225, 228, 232)
_WIDTH, _TALLEST = 1080, 460
_GAP, _STRIP = 6, 26
_MOST_HEAT = 0.55  # opacity where the map is highest


@dataclass(frozen=True)
class Mark:
    """Something to draw at a place: a lesion as an ellipse, a candidate as a box with its score."""

    box: Box
    colour: Colour
    text: str = ""
    round: bool = False


@dataclass(frozen=True)
class Panel:
    """One plane of one image, upright, at the size it is shown in."""

    title: str
    picture: Raster.Image
    colour: Colour = _INK


def plane_panel(image: Image, title: str, *, k: int | None = None, heat: Array | None = None,
                marks: Sequence[Mark] = (), share: float = 1.0, colour: Colour = _INK) -> Panel:  # fmt: skip
    """One plane of an image at true proportions.

    Args:
        image: its plane k is shown, the middle one if left out.
        title: stands above it.
        heat: (i', j', k') map over the whole field of view, drawn in warm colours where it is high.
        marks: places, those within half their depth of the plane are drawn.
        share: of the page's width that the panel may take.
        colour: of the title.
    """
    grid = image.grid
    place = grid.shape[2] // 2 if k is None else int(np.clip(k, 0, grid.shape[2] - 1))
    pixels = shown(np.asarray(image.read()))[:, :, place]
    spacing = grid.spacing
    extent = grid.shape[0] * spacing[0], grid.shape[1] * spacing[1]
    zoom = min((_WIDTH * share - _GAP) / extent[0], _TALLEST / extent[1])
    size = max(round(extent[0] * zoom), 8), max(round(extent[1] * zoom), 8)
    picture = Raster.fromarray(np.ascontiguousarray(pixels.swapaxes(0, 1))).resize(size, Raster.Resampling.BICUBIC)
    if heat is not None:
        picture = _heated(picture, _plane_of(heat, place, grid))
    draw = ImageDraw.Draw(picture)
    for mark in marks:
        if abs(mark.box.centre[2] - place) <= max(mark.box.size[2] / 2.0, 0.5):
            _draw(draw, mark, grid, size)
    return Panel(title, picture, colour)


def sheet(panels: Sequence[Panel], legend: Sequence[tuple[str, Colour]] = ()) -> Pixels:
    """Panels side by side, each below its title; (height, width, 3) RGB."""
    font = ImageFont.load_default(size=15)
    width = sum(panel.picture.width for panel in panels) + _GAP * (len(panels) - 1)
    tallest = max(panel.picture.height for panel in panels)
    page = Raster.new("RGB", (width, _STRIP + tallest + (_STRIP if legend else 0)), _PAPER)
    draw, offset = ImageDraw.Draw(page), 0
    for panel in panels:
        page.paste(panel.picture, (offset, _STRIP))
        draw.text((offset + 4, 5), panel.title, fill=panel.colour, font=font)
        offset += panel.picture.width + _GAP
    offset = 4
    for text, colour in legend:
        draw.text((offset, _STRIP + tallest + 5), text, fill=colour, font=font)
        offset += round(draw.textlength(text, font=font)) + 18
    return np.asarray(page)


def _plane_of(heat: Array, place: int, grid: Grid) -> FloatArray:
    """The map's plane at the image's plane, spread over 0 to 1."""
    at = min(int((place + 0.5) / grid.shape[2] * heat.shape[2]), heat.shape[2] - 1)
    values = np.nan_to_num(np.asarray(heat[:, :, at], dtype=np.float64))
    low, high = float(np.min(heat)), float(np.max(heat))
    spread: FloatArray = np.clip((values - low) / max(high - low, 1e-9), 0.0, 1.0)
    return spread


def _heated(picture: Raster.Image, heat: FloatArray) -> Raster.Image:
    """The picture below the map: from clear over orange to yellow."""
    smooth = Raster.fromarray((heat.T * 255).astype(np.uint8)).resize(picture.size, Raster.Resampling.BICUBIC)
    level = np.asarray(smooth, dtype=np.float64)[..., np.newaxis] / 255.0
    warm = np.concatenate([np.full_like(level, 255.0), 70.0 + 170.0 * level, 30.0 + 40.0 * level], axis=-1)
    opacity = _MOST_HEAT * level
    mixed = np.asarray(picture, dtype=np.float64) * (1.0 - opacity) + warm * opacity
    return Raster.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _draw(draw: ImageDraw.ImageDraw, mark: Mark, grid: Grid, size: tuple[int, int]) -> None:
    zoom = size[0] / grid.shape[0], size[1] / grid.shape[1]
    left, top, right, bottom = (
        (mark.box.centre[axis] + 0.5 + side * max(mark.box.size[axis], 1.0) / 2.0) * zoom[axis]
        for side in (-1, 1)
        for axis in (0, 1)
    )
    right, bottom = max(right, left + 4.0), max(bottom, top + 4.0)
    outline = draw.ellipse if mark.round else draw.rectangle
    outline((left, top, right, bottom), outline=mark.colour, width=2)
    if mark.text:
        font = ImageFont.load_default(size=13)
        above = top - 16 if top > 18 else bottom + 2
        draw.text((left, above), mark.text, fill=mark.colour, font=font, stroke_width=2, stroke_fill=_PAPER)


__all__ = ["MODEL_COLOUR", "RIVAL_COLOUR", "TRUTH", "Mark", "Panel", "plane_panel", "sheet"]
