"""Pictures of groups: a map of thumbnails, and the most typical cases."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image as Raster
from PIL import ImageDraw

from vesalius.core.case import Case
from vesalius.core.errors import VesaliusError
from vesalius.core.grid import FloatArray
from vesalius.core.report import Picture
from vesalius.tasks.outlines import Colour, shown
from vesalius.tasks.panels import plane_panel, sheet

_SIDE, _THUMB, _EDGE = 980, 44, 3
_PAPER: Colour = (12, 14, 17)
_MOST_ON_MAP = 400  # cases; more would hide each other
_SHOWN = 6
_LEAST_FOR_MAP = 12


def case_picture(case: Case, caption: str) -> Picture:
    """The first images of a case, the middle plane of each."""
    images = case.images[:3]
    panels = [plane_panel(image, image.role, share=1.0 / max(len(images), 2)) for image in images]
    return Picture(f"Case {case.id}. {caption}", sheet(panels))


def map_picture(
    cases: Sequence[Case], points: Mapping[str, Sequence[float]], groups: Mapping[str, str], names: Sequence[str]
) -> list[Picture]:
    """A t-SNE map (van der Maaten and Hinton, JMLR 2008) of cases as thumbnails, framed in their group's colour.

    Nothing where there are too few cases for a map.
    """
    drawn = [case for case in cases if case.id in points][:_MOST_ON_MAP]
    if len(drawn) < _LEAST_FOR_MAP:
        return []
    place = _flattened(np.array([points[case.id] for case in drawn]))
    page = Raster.new("RGB", (_SIDE, _SIDE), _PAPER)
    draw = ImageDraw.Draw(page)
    for case, (x, y) in zip(drawn, place, strict=True):
        thumb = _thumbnail(case)
        if thumb is None:
            continue
        left, top = (round(value * (_SIDE - _THUMB - 2 * _EDGE)) for value in (x, y))
        colour = colour_of(names.index(groups[case.id]), len(names))
        draw.rectangle((left, top, left + thumb.width + 2 * _EDGE, top + thumb.height + 2 * _EDGE), fill=colour)
        page.paste(thumb, (left + _EDGE, top + _EDGE))
    legend = ", ".join(names)
    caption = (
        f"Map of {len(drawn)} cases (t-SNE of their main directions), framed by group ({legend}). Neighbours are"
        " alike; the distance between heaps, their sizes and their shapes mean nothing."
    )
    return [Picture(caption, np.asarray(page))]


def typical_picture(typical: Mapping[str, Sequence[Case]]) -> list[Picture]:
    """The least unusual cases of each group, one row a group."""
    found = []
    for name, cases in typical.items():
        panels = [
            plane_panel(case.images[0], f"case {case.id[:8]}", share=1.0 / _SHOWN)
            for case in cases[:_SHOWN]
            if case.images
        ]
        if panels:
            found.append(Picture(f"The most typical cases of {name} among those measured.", sheet(panels)))
    return found


def colour_of(number: int, count: int) -> Colour:
    """A colour for each group, as far apart as so many can be."""
    red, green, blue = colorsys.hls_to_rgb(number / max(count, 1), 0.6, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def _flattened(points: FloatArray) -> FloatArray:
    """(n, 2) places from 0 to 1 on the map."""
    from sklearn.manifold import TSNE

    if points.shape[1] > 2:
        perplexity = min(30.0, (len(points) - 1) / 3.0)
        points = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(points).astype(np.float64)
    elif points.shape[1] == 1:
        points = np.concatenate([points, np.zeros_like(points)], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    placed: FloatArray = (points - low) / np.maximum(high - low, 1e-9)
    return placed


def _thumbnail(case: Case) -> Raster.Image | None:
    """The middle plane of the first image, small; None where it cannot be read any more."""
    try:
        pixels = shown(np.asarray(case.images[0].read()))
    except VesaliusError:
        return None
    plane = np.ascontiguousarray(pixels[:, :, pixels.shape[2] // 2].swapaxes(0, 1))
    picture = Raster.fromarray(plane)
    picture.thumbnail((_THUMB, _THUMB))
    return picture
