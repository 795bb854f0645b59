"""The average brain that every virtual head is grown from: MNI152 tissue maps as nilearn ships them.

Source: ICBM 152 nonlinear symmetric 2009a (Fonov et al., NeuroImage 2011), 1 mm, brain only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from vesalius.core.errors import MissingExtra
from vesalius.core.grid import Grid

Floats = npt.NDArray[np.float32]

GREY, WHITE, FLUID = 1, 2, 3
TISSUES = {GREY: "grey matter", WHITE: "white matter", FLUID: "CSF"}

_MARGIN = 24  # mm of surroundings kept around the brain, room for skull and scalp


@dataclass(frozen=True)
class Anatomy:
    """Average brain on its own grid (1 mm, LPS; origin at the anterior commissure).

    Args:
        grid: where the maps stand.
        tissues: (3, i, j, k) share of grey matter, white matter and CSF; sums to 1 inside the brain, to 0
            outside.
        texture: (i, j, k) what the template shows beyond its tissue shares (deep nuclei, vessels), in units
            of the difference between white matter and CSF.
        distance: (i, j, k) mm outside the brain's surface; 0 inside.
    """

    grid: Grid
    tissues: Floats
    texture: Floats
    distance: Floats


def _templates() -> tuple[list[Floats], npt.NDArray[np.float64]]:
    """T1, grey and white matter (each (i, j, k), 0..1) and their affine in LPS."""
    try:
        from nilearn import datasets
    except ImportError as error:
        raise MissingExtra(
            "The virtual cohort grows from brain maps that nilearn ships, and nilearn is not installed.",
            remedy='Install it with: pip install "vesalius[train]"',
        ) from error
    images: list[Any] = [
        datasets.load_mni152_template(resolution=1),
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
    ]
    ras_to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    arrays = [np.asarray(image.dataobj, dtype=np.float32) for image in images]
    return arrays, ras_to_lps @ np.asarray(images[0].affine, dtype=np.float64)


def template_t1() -> tuple[Floats, Grid]:
    """The T1-weighted average brain, (i, j, k) between 0 and 255, on its own grid (1 mm, LPS).

    Raises:
        MissingExtra: nilearn is not installed.
    """
    (t1, _, _), affine = _templates()
    i, j, k = t1.shape
    return np.asarray(t1 * 255.0, dtype=np.float32), Grid((i, j, k), affine)


def _surroundings(inside: npt.NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    bounds = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(inside.any(axis=others))
        bounds.append(slice(max(int(found[0]) - _MARGIN, 0), int(found[-1]) + _MARGIN + 1))
    return bounds[0], bounds[1], bounds[2]


@lru_cache(maxsize=1)
def average_brain() -> Anatomy:
    """The template, read once per process (about 150 MB).

    Raises:
        MissingExtra: nilearn is not installed.
    """
    from scipy import ndimage

    (t1, grey, white), affine = _templates()
    inside = ndimage.binary_fill_holes(ndimage.binary_opening(t1 > 0.05, iterations=2))
    padded = np.pad(inside, _MARGIN)  # the template's own box ends close to the brain
    box = _surroundings(padded)
    t1, grey, white = (np.pad(array, _MARGIN)[box] for array in (t1, grey, white))
    inside = padded[box]
    fluid = np.clip(1.0 - grey - white, 0.0, 1.0)
    shares = np.stack([grey, white, fluid]) * inside
    # The template is the mean of many people, so its borders are soft; squaring the shares makes them as
    # clear as one person's.
    shares = shares**2
    shares = (shares / np.maximum(shares.sum(axis=0), 1e-6)).astype(np.float32)
    levels = np.linalg.lstsq(shares[:, inside].T, t1[inside], rcond=None)[0]
    texture = (t1 - np.tensordot(levels, shares, 1)) * inside / (levels[1] - levels[2])
    distance = ndimage.distance_transform_edt(~inside).astype(np.float32)
    start = np.array([part.start for part in box]) - _MARGIN
    affine[:3, 3] = affine[:3, :3] @ start + affine[:3, 3]
    i, j, k = inside.shape
    return Anatomy(Grid((i, j, k), affine), shares, texture.astype(np.float32), distance)
